"""What of a checkpoint does not depend on prompt, seed or step, computed once at export on the exported graphs."""

from __future__ import annotations

import numpy as np

from ...runner.common.errors import UserError
from ...runner.inputs.tokens import tokenizer_of
from ...runner.loading.models import Models

STATISTICS = ("clip_mean", "clip_std")  # of image embeddings: how the prior's output becomes one


def step_independent(models: Models, prior_tensors) -> dict[str, np.ndarray]:
    """The constants of a bundle (see Bundle.constants), from its other files.

    ``empty_text_embeds`` (1, P), ``empty_text_hidden_states`` (1, 77, H), ``empty_text_mask`` (1, 77): the prior's
    unconditional side, the text "". ``zero_image_embeds`` (1, E): the image encoder on an all-zero tensor, the decoder's
    unconditional side. ``clip_mean``, ``clip_std`` (1, E): how the prior's output becomes an image embedding.

    models: of the bundle. prior_tensors: the prior's checkpoint tensors.
    """
    tokens = tokenizer_of(models.bundle).encode("")
    end_position = np.array([tokens.end_position], np.int32)
    with models.lease("text_encoder") as text_encoder:
        embeds, hidden_states = text_encoder(input_ids=tokens.input_ids[None], end_position=end_position)
    pixels = models.bundle.manifest.find("image_encoder").input("pixel_values")
    with models.lease("image_encoder") as image_encoder:
        (zero_image_embeds,) = image_encoder(pixel_values=np.zeros(pixels.shape, np.float32))
    return {
        "empty_text_embeds": embeds,
        "empty_text_hidden_states": hidden_states,
        "empty_text_mask": tokens.mask[None],
        "zero_image_embeds": zero_image_embeds,
        **{name: prior_tensors.read(name) for name in STATISTICS},
    }


def check_statistics(prior_tensors, width: int) -> None:
    """UserError, from the files' headers, unless there are clip_mean and clip_std for image embeddings of that width."""
    for name in STATISTICS:
        found = prior_tensors.shapes.get(name)
        if found != (1, width):
            what = f"holds {name!r} of shape {list(found)}" if found is not None else f"lacks tensor {name!r}"
            raise UserError(f"{prior_tensors.path} {what}; config.json asks for [1, {width}]: download the prior again")
        prior_tensors.check_type(name)
