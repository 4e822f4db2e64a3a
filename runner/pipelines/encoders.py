"""Texts and pictures as the two diffusions take them: what the encoders make of them, and what each needs at every step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..bundle.opened import Bundle
from ..diffusion.loop import finite
from ..loading.models import Models


@dataclass(frozen=True, eq=False)
class Text:
    """A text after the text encoder, under the names of the prior's inputs.

    text_embeds (1, P), text_hidden_states (1, 77, H), text_mask (1, 77) with 1 for real tokens.
    """

    text_embeds: np.ndarray
    text_hidden_states: np.ndarray
    text_mask: np.ndarray


def encode_texts(models: Models, texts: Iterable[str]) -> dict[str, Text]:
    """Each text encoded, once; the empty one is a constant of the bundle, the unconditional side of guidance.

    A text of more than 77 tokens is cut, with a warning that quotes what was lost.
    """
    from ..inputs.tokens import tokenizer_of  # its library takes a while to import

    bundle = models.bundle
    encoded: dict[str, Text] = {}
    with ExitStack() as stack:
        encode = None
        for text in dict.fromkeys(texts):
            if text == "":
                names = ("text_embeds", "text_hidden_states", "text_mask")
                encoded[text] = Text(*(bundle.constants[f"empty_{name}"] for name in names))
                continue
            tokens = tokenizer_of(bundle).encode(text)
            if tokens.truncated:
                warnings.warn(f"the prompt has more than {tokens.input_ids.size} tokens; this part was cut: "
                              f"{tokens.truncated!r}", stacklevel=2)
            encode = encode or stack.enter_context(models.lease("text_encoder"))
            outputs = encode(input_ids=tokens.input_ids[None], end_position=np.array([tokens.end_position], np.int32))
            embeds, hidden_states = finite("text_encoder", outputs)
            encoded[text] = Text(embeds, hidden_states, tokens.mask[None])
    return encoded


def prior_contexts(models: Models, texts: Mapping[str, Text]) -> dict[str, np.ndarray]:
    """The prior's keys and values of each text, (layers, heads, ...).

    The text side of the prior does not see the timestep (its attention is causal), so they are computed once for each
    text; a step only runs the three tokens that change.
    """
    with models.lease("prior_context") as run:
        return {name: finite("prior_context", run(**vars(text)))[0] for name, text in texts.items()}


def embed_pictures(models: Models, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The image encoder's embedding (1, E) of each of some pixel values (1, 3, S, S); equal ones are embedded once."""
    if not pictures:
        return []
    found: dict[bytes, np.ndarray] = {}
    with models.lease("image_encoder") as run:
        for pixel_values in pictures:
            if pixel_values.tobytes() not in found:
                found[pixel_values.tobytes()] = finite("image_encoder", run(pixel_values=pixel_values))[0]
    return [found[pixel_values.tobytes()] for pixel_values in pictures]


def unet_contexts(
    models: Models, stage: str, image_embeds: np.ndarray, negatives: np.ndarray | None
) -> list[dict[str, np.ndarray]]:
    """What a UNet needs of each embedding (after its negative, where there are some) and what does not depend on the step.

    stage: the UNet's.
    """
    known: dict[bytes, tuple[np.ndarray, ...]] = {}
    with models.lease(f"{stage}_context") as run:
        for embeds in (*image_embeds, *(() if negatives is None else negatives)):
            if embeds.tobytes() not in known:
                known[embeds.tobytes()] = finite(f"{stage}_context", run(image_embeds=embeds[None]))
    sides = [image_embeds] if negatives is None else [negatives, image_embeds]
    pairs = [[known[embeds.tobytes()] for embeds in row] for row in zip(*sides)]
    return [{name: np.concatenate(tensors) for name, tensors in zip(("time_addition", "added_kv"), zip(*pair))} for pair in pairs]


def encode_images(models: Models, images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The latents (N, C, h, w) of pictures (N, 3, height, width) from -1 to 1, without quantization."""
    with models.lease("movq_encoder", 1, size) as run:
        return np.concatenate([finite("movq_encoder", run(image=image[None]))[0] for image in images])


def text_bytes(bundle: Bundle) -> tuple[int, int]:
    """Bytes of a text after the text encoder, and of its context."""
    graph = bundle.manifest.find("prior_context")
    text, context = (sum(4 * math.prod(tensor.shape) for tensor in side) for side in (graph.inputs, graph.outputs))
    return text, context
