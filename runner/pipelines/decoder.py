"""Image embeddings to pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..diffusion import noise
from .decoder_steps import decode_latents, decoder_steps
from ..diffusion.loop import initial_latents
from ..common.errors import UserError
from ..pictures.images import to_pil
from ..common.options import as_array, as_choice, as_size
from .outputs import ImagePipelineOutput
from ..diffusion.guidance import Sampling
from ..schedulers import Schedule
from .base import DiffusionPipeline


class KandinskyV22Pipeline(DiffusionPipeline):
    """Image embeddings to pictures."""

    stage = "decoder"
    callback_tensor_inputs = ("latents", "image_embeds", "negative_image_embeds")

    def __call__(
        self,
        image_embeds: np.ndarray | list[np.ndarray],
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
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `image_embeds` (N, E), guided away from `negative_image_embeds` (without: the zero picture's).

        height, width: pixels, rounded up to what the MoVQ can make. output_type: "pil", "np" (N, H, W, 3 in [0, 1]) or
        "latent" (N x num_images_per_prompt, C, h, w). guidance_rescale, guidance_interval: see `Guidance`.
        """
        sampling, schedule, size = self.check(
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval,
        )
        shape = self.bundle.manifest.find("unet", 1, size).input("sample").shape[1:]
        constants = self.bundle.constants
        embedding_dim = constants["clip_mean"].shape[-1]
        image_embeds = as_array(image_embeds, "image_embeds", embedding_dim)
        if negative_image_embeds is None:
            negative_image_embeds = constants["zero_image_embeds"]
        negatives = as_array(negative_image_embeds, "negative_image_embeds", embedding_dim)
        if len(negatives) not in (1, len(image_embeds)):
            raise UserError(f"negative_image_embeds has {len(negatives)} rows and image_embeds has {len(image_embeds)}: "
                            "give one row, or as many")
        negatives = np.broadcast_to(negatives, image_embeds.shape)
        image_embeds, negatives = (np.repeat(x, num_images_per_prompt, axis=0) for x in (image_embeds, negatives))

        source = noise.source(generator)
        latents = initial_latents((len(image_embeds), *shape), latents, source, schedule)
        steps = decoder_steps(
            self.models,
            schedule,
            size,
            image_embeds,
            negatives,
            latents,
            source,
            sampling.guidance,
            self.scheduler.learned_variance,
        )
        tensors = {"image_embeds": image_embeds, "negative_image_embeds": negatives}
        latents = self._follow(
            steps, len(schedule.timesteps), callback_on_step_end, callback_on_step_end_tensor_inputs, tensors
        )
        if output_type == "latent":
            images = latents
        else:
            images = decode_latents(self.models, latents, size)
            images = to_pil(images) if output_type == "pil" else images
        return ImagePipelineOutput(images) if return_dict else (images,)

    def check(
        self,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> tuple[Sampling, Schedule, tuple[int, int]]:
        """What a call with these options would run, and the size of its pictures; UserError if it would be refused.

        For whoever has work to do before the call, as the prior has.
        """
        as_choice(output_type, ("pil", "np", "latent"), "output_type")
        self._check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        manifest = self.bundle.manifest
        defaults = manifest.defaults["decoder"]
        sampling = Sampling.of(
            defaults,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            guidance_rescale=guidance_rescale,
            guidance_interval=guidance_interval,
        )
        factor = manifest.settings["movq_scale_factor"]
        size = as_size(
            defaults["height"] if height is None else height, defaults["width"] if width is None else width, factor
        )
        schedule = self.scheduler.schedule(sampling.num_inference_steps)
        batches = sampling.guidance.batches(len(schedule.timesteps))
        graphs = [manifest.find("unet_context")] + [manifest.find("unet", batch, size) for batch in batches]
        graphs += [] if output_type == "latent" else [manifest.find("movq_decoder", 1, size)]
        self.require_memory(graphs)
        return sampling, schedule, size
