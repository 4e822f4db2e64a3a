"""Prompt straight to picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..diffusion import noise
from ..loading.models import Models
from .outputs import ImagePipelineOutput
from ..schedulers import Scheduler
from .base import Pipeline
from .decoder import KandinskyV22Pipeline
from .prior import KandinskyV22PriorPipeline


class KandinskyV22CombinedPipeline(Pipeline):
    """Prompt straight to picture: the prior pipeline, then the decoder pipeline, on one generator."""

    def __init__(self, models: Models):
        super().__init__(models)
        self.prior_pipe = KandinskyV22PriorPipeline(models)
        self.decoder_pipe = KandinskyV22Pipeline(models)

    @property
    def scheduler(self) -> Scheduler:
        """The decoder's sampler: see `DiffusionPipeline.scheduler`."""
        return self.decoder_pipe.scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler | str) -> None:
        self.decoder_pipe.scheduler = scheduler

    def set_progress_bar_config(self, **options) -> None:
        self.prior_pipe.set_progress_bar_config(**options)
        self.decoder_pipe.set_progress_bar_config(**options)

    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        prior_guidance_scale: float | None = None,
        prior_num_inference_steps: int | None = None,
        generator: Any = None,
        latents: np.ndarray | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        prior_callback_on_step_end: Callable | None = None,
        prior_callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `prompt`: arguments of both pipelines; `latents` are the prior's, as in the reference."""
        decoding = {
            "height": height,
            "width": width,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "output_type": output_type,
            "callback_on_step_end": callback_on_step_end,
            "callback_on_step_end_tensor_inputs": callback_on_step_end_tensor_inputs,
            "guidance_rescale": guidance_rescale,
            "guidance_interval": guidance_interval,
        }
        self.decoder_pipe.check(**decoding)  # before the prior's work, not after it
        source = noise.source(generator)
        embeds = self.prior_pipe(
            prompt,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            num_inference_steps=prior_num_inference_steps,
            generator=source,
            latents=latents,
            guidance_scale=prior_guidance_scale,
            callback_on_step_end=prior_callback_on_step_end,
            callback_on_step_end_tensor_inputs=prior_callback_on_step_end_tensor_inputs,
        )
        return self.decoder_pipe(*embeds, generator=source, return_dict=return_dict, **decoding)
