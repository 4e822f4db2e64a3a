"""Image embedding to picture: diffusion with the UNet, then the MoVQ decoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from ..loading.models import Models
from ..diffusion.loop import Step, diffuse, finite
from ..common.errors import UserError
from ..diffusion.guidance import Guidance
from ..schedulers import Schedule
from ..diffusion.sinusoid import timestep_embedding

Size = tuple[int, int]
ONE_GRAY_LEVEL = 1 / 255


def decoder_steps(
    models: Models,
    schedule: Schedule,
    size: Size,
    image_embeds: np.ndarray,
    negative_image_embeds: np.ndarray,
    latents: np.ndarray,
    source,
    guidance: Guidance,
    learned_variance: bool,
) -> Iterator[Step]:
    """Denoise `latents` (N, C, h, w), one row an embedding (N, E), guided away from the negatives (N, E).

    The UNet's output channels are epsilon, then variance: guidance is on epsilon only, the variance is the conditional
    one's and reaches the scheduler only if it takes it.
    """
    contexts = _contexts(models, image_embeds, negative_image_embeds if guidance.on else None)
    channels = latents.shape[1]
    width = models.bundle.manifest.find("unet", 1, size).input("time_proj").shape[1]
    options = models.bundle.manifest.settings["unet_time_proj"]
    with models.lease_batches("unet", size) as unet:

        def predict(latents: np.ndarray, index: int) -> np.ndarray:
            time_proj = timestep_embedding(schedule.timesteps[index], width, **options)
            batch = guidance.batch(index, len(schedule.timesteps))
            run = unet(batch)
            rows = []
            for row, context in zip(latents, contexts):
                context = {name: tensor[-batch:] for name, tensor in context.items()}  # the conditional half is last
                (output,) = run(sample=np.stack([row] * batch), time_proj=time_proj, **context)
                epsilon, variance = output[:, :channels], output[-1:, channels:]
                epsilon = epsilon if batch == 1 else guidance.combine(epsilon[:1], epsilon[1:])
                rows.append(np.concatenate([epsilon, variance], axis=1) if learned_variance else epsilon)
            return np.concatenate(rows)

        yield from diffuse(schedule, latents, predict, source, "decoder")


def _contexts(models: Models, image_embeds: np.ndarray, negatives: np.ndarray | None) -> list[dict]:
    """What the UNet needs of each embedding (or pair of them) and what does not depend on the step."""
    cache: dict[bytes, tuple[np.ndarray, ...]] = {}
    with models.lease("unet_context") as run:

        def context(embeds: np.ndarray) -> tuple[np.ndarray, ...]:
            key = embeds.tobytes()
            if key not in cache:
                cache[key] = finite("unet_context", run(image_embeds=embeds[None]))
            return cache[key]

        sides = [image_embeds] if negatives is None else [negatives, image_embeds]
        rows = [[context(embeds) for embeds in row] for row in zip(*sides)]
    names = ("time_addition", "added_kv")
    return [{name: np.concatenate(tensors) for name, tensors in zip(names, zip(*row))} for row in rows]


def decode_latents(models: Models, latents: np.ndarray, size: Size) -> np.ndarray:
    """Pictures (N, H, W, 3) float32 in [0, 1] of `latents` (N, C, h, w). Warns of a picture that shows nothing."""
    with models.lease("movq_decoder", 1, size) as run:
        images = np.concatenate([run(latents=row[None])[0] for row in latents])
    if not np.isfinite(images).all():
        raise UserError("movq_decoder: the picture holds values that are not finite: check the bundle")
    half = np.float32(0.5)
    pictures = np.clip(images * half + half, 0, 1).transpose(0, 2, 3, 1)
    for number, picture in enumerate(pictures, 1):
        if (np.ptp(picture, axis=(0, 1)) < ONE_GRAY_LEVEL).all():
            warnings.warn(f"picture {number} of {len(pictures)} is flat, all of it one color: see with kandinsky-mindir "
                          "verify whether the bundle is right, then try another scheduler, steps or guidance scale")
    return pictures
