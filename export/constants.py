"""What of a checkpoint does not depend on prompt, seed or step, computed once at export on the exported graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..runner.engine import Engine
from ..runner.manifest import GraphInfo
from ..runner.tokens import Tokenizer


def step_independent(
    engine: Engine, folder: Path, graphs: dict[str, GraphInfo], tokenizer: Tokenizer, prior_tensors
) -> dict[str, np.ndarray]:
    """The constants of a bundle.

    ``empty_text_embeds`` (1, P), ``empty_text_hidden_states`` (1, 77, H), ``empty_text_mask`` (1, 77): the prior's
    unconditional side, the text "". ``zero_image_embeds`` (1, E): the image encoder on an all-zero tensor, the decoder's
    unconditional side. ``clip_mean``, ``clip_std`` (1, E): how the prior's output becomes an image embedding.

    engine: runs the lowered graphs in `folder`. prior_tensors: the prior's checkpoint tensors.
    """
    tokens = tokenizer.encode("")
    end_position = np.array([tokens.end_position], np.int32)
    embeds, hidden_states = _run(
        engine, folder, graphs["text_encoder"], input_ids=tokens.input_ids[None], end_position=end_position
    )
    pixels = np.zeros(graphs["image_encoder"].inputs[0].shape, np.float32)
    (zero_image_embeds,) = _run(engine, folder, graphs["image_encoder"], pixel_values=pixels)
    return {
        "empty_text_embeds": embeds,
        "empty_text_hidden_states": hidden_states,
        "empty_text_mask": tokens.mask[None],
        "zero_image_embeds": zero_image_embeds,
        "clip_mean": prior_tensors.read("clip_mean"),
        "clip_std": prior_tensors.read("clip_std"),
    }


def _run(engine: Engine, folder: Path, graph: GraphInfo, **inputs: np.ndarray) -> list[np.ndarray]:
    model = engine.load(folder / graph.lite)
    try:
        return model.run([inputs[tensor.name] for tensor in graph.inputs])
    finally:
        model.close()
