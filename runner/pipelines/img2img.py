"""Image embeddings and a picture to pictures: the diffusion starts from the picture, made noisy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..diffusion import noise
from .base import Sampling
from .decoder import KandinskyV22Pipeline
from .outputs import ImagePipelineOutput

Pictures = Image.Image | np.ndarray | str | list


class KandinskyV22Img2ImgPipeline(KandinskyV22Pipeline):
    """Image embeddings to pictures that keep something of a picture.

    After diffusers 0.42.1, pipelines/kandinsky2_2/pipeline_kandinsky2_2_img2img.py. Where that is wrong, it is right here:
    height and width are not exchanged, every picture has noise of its own, one picture serves all embeddings (and one
    embedding all pictures), and with a second-order sampler `strength` is a share of its steps, not of its calls.
    """

    takes = ("image",)

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        image_embeds: np.ndarray | list[np.ndarray],
        image: Pictures,
        negative_image_embeds: np.ndarray | list[np.ndarray] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float = 0.3,
        num_images_per_prompt: int = 1,
        generator: Any = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        return_dict: bool = True,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        cache_interval: int = 1,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `image_embeds` (N, E) that start from `image`: see `inputs.conditions.images` for what that may be.

        strength: above 0 to 1, the share of the steps that are run, int(steps * strength); a step at least. Others: as of
        `KandinskyV22Pipeline`.
        """
        return self._call(locals())

    def _first(self, sampling: Sampling, shape: tuple[int, ...], latents: Any, source, encoded: Any = None) -> np.ndarray:
        """The picture's latents, as noisy as the schedule is where the run starts."""
        if latents is not None:
            raise UserError("latents cannot be given: the picture's are what the diffusion starts from")
        return sampling.schedule.noised(encoded, noise.draw(source, shape), sampling.start).astype(np.float32)
