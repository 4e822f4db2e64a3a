"""Image embedding to picture: diffusion with the UNet, then the MoVQ decoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .component import Components
from .diffusion import Step, diffuse, guide
from .errors import UserError
from .schedulers import Schedule
from .sinusoid import timestep_embedding

Size = tuple[int, int]


def decoder_steps(
    components: Components,
    schedule: Schedule,
    size: Size,
    image_embeds: np.ndarray,
    negative_image_embeds: np.ndarray | None,
    latents: np.ndarray,
    source,
    guidance_scale: float,
    learned_variance: bool,
) -> Iterator[Step]:
    """Denoise `latents` (N, C, h, w), one row an embedding (N, E); guided where negatives (N, E) are given.

    The UNet's output channels are epsilon, then variance: guidance is on epsilon only, the variance is the conditional
    one's and reaches the scheduler only if it takes it.
    """
    contexts = _contexts(components, image_embeds, negative_image_embeds)
    batch = 1 if negative_image_embeds is None else 2
    channels = latents.shape[1]
    width = components.bundle.manifest.find("unet", batch, size).input("time_proj").shape[1]
    options = components.bundle.manifest.settings["unet_time_proj"]
    with components["unet"].loaded(batch, size) as run:

        def predict(latents: np.ndarray, timestep: float) -> np.ndarray:
            time_proj = timestep_embedding(timestep, width, **options)
            rows = []
            for row, context in zip(latents, contexts):
                (output,) = run(sample=np.stack([row] * batch), time_proj=time_proj, **context)
                epsilon, variance = output[:, :channels], output[-1:, channels:]
                epsilon = epsilon if batch == 1 else guide(epsilon[:1], epsilon[1:], guidance_scale)
                rows.append(np.concatenate([epsilon, variance], axis=1) if learned_variance else epsilon)
            return np.concatenate(rows)

        yield from diffuse(schedule, latents, predict, source, "decoder")


def _contexts(components: Components, image_embeds: np.ndarray, negatives: np.ndarray | None) -> list[dict]:
    """What the UNet needs of each embedding (or pair of them) and what does not depend on the step."""
    cache: dict[bytes, tuple[np.ndarray, ...]] = {}
    with components["unet_context"].loaded() as run:

        def context(embeds: np.ndarray) -> tuple[np.ndarray, ...]:
            key = embeds.tobytes()
            if key not in cache:
                cache[key] = run(image_embeds=embeds[None])
            return cache[key]

        sides = [image_embeds] if negatives is None else [negatives, image_embeds]
        rows = [[context(embeds) for embeds in row] for row in zip(*sides)]
    names = ("time_addition", "added_kv")
    return [{name: np.concatenate(tensors) for name, tensors in zip(names, zip(*row))} for row in rows]


def decode_latents(components: Components, latents: np.ndarray, size: Size) -> np.ndarray:
    """Pictures (N, H, W, 3) float32 in [0, 1] of `latents` (N, C, h, w)."""
    with components["movq_decoder"].loaded(1, size) as run:
        images = np.concatenate([run(latents=row[None])[0] for row in latents])
    if not np.isfinite(images).all():
        raise UserError("movq_decoder: the picture holds values that are not finite: check the bundle")
    half = np.float32(0.5)
    return np.clip(images * half + half, 0, 1).transpose(0, 2, 3, 1)
