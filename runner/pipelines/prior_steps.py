"""Text to image embedding: the text encoder, then diffusion with the prior."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..loading.models import Models
from ..diffusion.loop import Step, diffuse, finite
from ..diffusion.guidance import Guidance
from ..schedulers import Schedule
from ..diffusion.sinusoid import timestep_embedding


@dataclass(frozen=True, eq=False)
class TextCondition:
    """A text as the prior takes it: embedding (1, E), hidden states (1, 77, E), mask (1, 77) with 1 for real tokens."""

    text_embeds: np.ndarray
    text_hidden_states: np.ndarray
    text_mask: np.ndarray


def encode_texts(models: Models, texts: Sequence[str]) -> list[TextCondition]:
    """The condition of each text; equal texts are encoded once, and the empty one is a constant of the bundle.

    A text of more than 77 tokens is cut, with a warning that quotes what was lost.
    """
    bundle = models.bundle
    conditions: dict[str, TextCondition] = {}
    with ExitStack() as stack:
        encode = None
        for text in dict.fromkeys(texts):
            if text == "":
                conditions[text] = empty_text(models)
                continue
            tokens = bundle.tokenizer.encode(text)
            if tokens.truncated:
                warnings.warn(
                    f"the prompt has more than {bundle.tokenizer.max_length} tokens; this part was cut: {tokens.truncated!r}",
                    stacklevel=2,
                )
            encode = encode or stack.enter_context(models.lease("text_encoder"))
            outputs = encode(input_ids=tokens.input_ids[None], end_position=np.array([tokens.end_position], np.int32))
            embeds, hidden_states = finite("text_encoder", outputs)
            conditions[text] = TextCondition(embeds, hidden_states, tokens.mask[None])
    return [conditions[text] for text in texts]


def empty_text(models: Models) -> TextCondition:
    """The unconditional side of guidance: a constant that was computed at export."""
    constants = models.bundle.constants
    return TextCondition(*(constants[f"empty_{name}"] for name in ("text_embeds", "text_hidden_states", "text_mask")))


def prior_steps(
    models: Models,
    schedule: Schedule,
    conditions: Sequence[TextCondition],
    unconditional: Sequence[TextCondition] | None,
    latents: np.ndarray,
    source,
    guidance: Guidance,
) -> Iterator[Step]:
    """Denoise image embeddings `latents` (N, E), one row a condition; guided where `unconditional` is given.

    The text side of the prior does not see the timestep (its attention is causal), so its keys and values are
    computed once for each text; a step only runs the three tokens that change.
    """
    contexts = _contexts(models, list(conditions) + list(unconditional or ()))
    pairs = [(context,) for context in conditions] if unconditional is None else list(zip(unconditional, conditions))
    inputs = [
        {
            "context": np.concatenate([contexts[condition] for condition in pair], axis=1),
            "text_mask": np.concatenate([condition.text_mask for condition in pair]),
        }
        for pair in pairs
    ]
    batch = 1 if unconditional is None else 2
    graph = models.bundle.manifest.find("prior", batch)
    width = graph.input("time_proj").shape[1]
    options = models.bundle.manifest.settings["prior_time_proj"]
    with models.lease("prior", batch) as run:

        def predict(latents: np.ndarray, index: int) -> np.ndarray:
            time_proj = timestep_embedding(schedule.timesteps[index], width, **options)
            rows = []
            for row, row_inputs in zip(latents, inputs):
                (embeds,) = run(latents=np.stack([row] * batch), time_proj=time_proj, **row_inputs)
                rows.append(embeds if batch == 1 else guidance.combine(embeds[:1], embeds[1:]))
            return np.concatenate(rows)

        yield from diffuse(schedule, latents, predict, source, "prior")


def _contexts(models: Models, conditions: Sequence[TextCondition]) -> dict[TextCondition, np.ndarray]:
    with models.lease("prior_context") as run:
        return {text: finite("prior_context", run(**vars(text)))[0] for text in dict.fromkeys(conditions)}


def image_embedding(models: Models, pixel_values: np.ndarray) -> np.ndarray:
    """The image encoder's embedding (1, E) of `pixel_values` (1, 3, S, S) float32."""
    with models.lease("image_encoder") as run:
        return finite("image_encoder", run(pixel_values=pixel_values))[0]
