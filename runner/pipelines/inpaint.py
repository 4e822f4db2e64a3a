"""Image embeddings, a picture and a mask to pictures: what is white in the mask is painted anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..diffusion import noise
from ..diffusion.loop import Step, as_latents, finite
from ..inputs import conditions
from .base import Sampling
from .call import Given, Rows
from .decoder import Decoding, KandinskyV22Pipeline
from .img2img import Pictures
from .outputs import ImagePipelineOutput


class KandinskyV22InpaintPipeline(KandinskyV22Pipeline):
    """Image embeddings to pictures that keep a part of a picture.

    After diffusers 0.42.1, pipelines/kandinsky2_2/pipeline_kandinsky2_2_inpainting.py. Where that is wrong, it is right here:
    each picture of a call has its own background and mask, one picture or mask serves all, no array of the caller is written
    to, and what is kept is as noisy as the sampler's own levels say, whatever its first noise is multiplied by.
    """

    kind = "inpaint"
    unet = "inpaint_unet"
    maps = ("inpaint_map",)
    takes = ("image", "mask_image")

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        image_embeds: np.ndarray | list[np.ndarray],
        image: Pictures,
        mask_image: Pictures,
        negative_image_embeds: np.ndarray | list[np.ndarray] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Any = None,
        latents: np.ndarray | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        cache_interval: int = 1,
        paste: bool = False,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `image_embeds` (N, E) where `mask_image` is white, and `image` elsewhere.

        image, mask_image: see `inputs.conditions`. Kept latents go through the MoVQ, which changes their pixels a little;
        paste: put the picture's own pixels back where the mask is black. Others: as of `KandinskyV22Pipeline`.
        """
        return self._call(locals())

    def _first(self, sampling: Sampling, shape: tuple[int, ...], latents: Any, source, encoded: Any = None) -> np.ndarray:
        return noise.draw(source, shape) if latents is None else as_latents(latents, shape)

    def _rows(self, decoding: Decoding, image_embeds, negatives, source, latents: Any, given: Given) -> Rows:
        rows = super()._rows(decoding, image_embeds, negatives, source, latents, given)
        assert given.mask_image is not None  # it takes one
        keep = conditions.kept_latents(given.mask_image, (rows.latents.shape[2], rows.latents.shape[3]))
        keep = np.repeat(keep, len(rows.latents) // len(keep), axis=0)
        scale = np.float32(decoding.sampling.schedule.init_noise_sigma)
        return dataclasses.replace(rows, latents=rows.latents * scale, noise=rows.latents, keep=keep)

    def _maps(self, rows: Rows, size: tuple[int, int]) -> list[np.ndarray]:
        assert rows.encoded is not None and rows.keep is not None  # _rows made them
        with self.models.lease("inpaint_map", 1, size) as run:
            return [finite("inpaint_map", run(masked_latents=(encoded * keep)[None], mask=keep[None]))[0]
                    for encoded, keep in zip(rows.encoded, rows.keep)]

    def _finished(self, picture: np.ndarray, row: int, decoding: Decoding, given: Given) -> np.ndarray:
        """With the pixels of what is kept, if that was asked for."""
        if not decoding.paste:
            return picture
        assert given.image is not None and given.mask_image is not None  # it takes them
        own = row // decoding.sampling.num_images_per_prompt
        image, mask = (side[own % len(side)] for side in (given.image, conditions.full_masks(given.mask_image, decoding.size)))
        return np.where(mask[..., None], picture, image.transpose(1, 2, 0) * np.float32(0.5) + np.float32(0.5))

    def _steps(self, steps: Iterator[Step], rows: Rows, sampling: Sampling) -> Iterator[Step]:
        """`steps`, after each of which what is kept is the picture's latents again, as noisy as the next step takes them."""
        keep, encoded = rows.keep, rows.encoded
        assert keep is not None and encoded is not None and rows.noise is not None  # _rows made them
        schedule, last = sampling.schedule, sampling.run - 1
        for step in steps:
            known = encoded if step.index == last else schedule.noised(encoded, rows.noise, step.index + 1)
            step.latents = (keep * known + (np.float32(1) - keep) * step.latents).astype(np.float32)
            yield step
            if step.index == last:  # a callback may have changed them
                step.latents = keep * encoded + (np.float32(1) - keep) * step.latents
