"""Text, pictures and mixes of them to image embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ..diffusion import noise
from ..loading.models import Models
from ..diffusion.loop import diffuse, initial_latents
from ..common.errors import UserError
from ..common.options import as_choice, as_floats, as_texts, as_weights
from .outputs import KandinskyPriorPipelineOutput
from ..inputs.preprocessing import ImageProcessor
from .prior_steps import empty_text, encode_texts, image_embedding, prior_steps
from ..diffusion.guidance import Sampling
from ..schedulers import Schedule
from .base import DiffusionPipeline


class KandinskyV22PriorPipeline(DiffusionPipeline):
    """Text, or a weighted mix of texts and pictures, to image embeddings."""

    stage = "prior"
    callback_tensor_inputs = ("latents", "prompt_embeds", "text_encoder_hidden_states", "text_mask")

    def __init__(self, models: Models):
        super().__init__(models)
        self.image_processor = ImageProcessor(self.bundle.manifest.image_processor or {})

    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        generator: Any = None,
        latents: np.ndarray | None = None,
        guidance_scale: float | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
    ) -> KandinskyPriorPipelineOutput | tuple:
        """Image embeddings of `prompt`, and those of `negative_prompt` (without one: of an all-zero picture).

        A negative prompt doubles the batch, as in the reference: one draw of latents (N or 2N, E) for all. Returns
        (N, E) float32 twice, N = prompts x num_images_per_prompt, the pictures of one prompt next to each other.
        """
        as_choice(output_type, ("np",), "output_type")
        self._check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        sampling, schedule = self._check(num_inference_steps, guidance_scale, num_images_per_prompt)
        prompts = as_texts(prompt, "prompt")
        negatives = None if negative_prompt is None else as_texts(negative_prompt, "negative_prompt")
        if negatives is not None and len(negatives) != len(prompts):
            raise UserError(f"negative_prompt has {len(negatives)} texts and prompt has {len(prompts)}: give one for each")
        source = noise.source(generator)
        rows = len(prompts + (negatives or [])) * num_images_per_prompt
        latents = initial_latents((rows, self.embedding_dim), latents, source, schedule)

        conditions = _repeat(encode_texts(self.models, prompts + (negatives or [])), num_images_per_prompt)
        if not sampling.guidance.on:
            unconditional = None
        elif negatives is None:
            unconditional = [empty_text(self.models)] * len(conditions)
        else:
            unconditional = conditions[len(conditions) // 2 :] * 2
        both = (unconditional or []) + conditions
        tensors = {
            "prompt_embeds": np.concatenate([condition.text_embeds for condition in both]),
            "text_encoder_hidden_states": np.concatenate([condition.text_hidden_states for condition in both]),
            "text_mask": np.concatenate([condition.text_mask for condition in both]),
        }
        steps = prior_steps(self.models, schedule, conditions, unconditional, latents, source, sampling.guidance)
        embeds = self._follow(
            steps, len(schedule.timesteps), callback_on_step_end, callback_on_step_end_tensor_inputs, tensors
        )
        embeds = embeds * self.bundle.constants["clip_std"] + self.bundle.constants["clip_mean"]
        image_embeds, negative_image_embeds = (
            (embeds, self.zero_image_embeds(len(embeds))) if negatives is None else np.split(embeds, 2)
        )
        output = KandinskyPriorPipelineOutput(image_embeds, negative_image_embeds)
        return output if return_dict else output.to_tuple()

    def interpolate(
        self,
        images_and_prompts: list[str | Image.Image | np.ndarray],
        weights: list[float],
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        generator: Any = None,
        latents: np.ndarray | None = None,
        negative_prior_prompt: str | None = None,
        negative_prompt: str = "",
        guidance_scale: float | None = None,
    ) -> KandinskyPriorPipelineOutput:
        """Embeddings of a mix: each item's embedding times its weight, summed (weights need not add to 1).

        Items are texts, pictures, or preprocessed pixel values (1, 3, S, S). All texts draw from the same generator, or
        start from the same `latents`. Returns (num_images_per_prompt, E) float32 twice.
        """
        weights = as_weights(weights, images_and_prompts)
        source = noise.source(generator)
        options = {
            "negative_prompt": negative_prior_prompt,
            "num_images_per_prompt": num_images_per_prompt,
            "num_inference_steps": num_inference_steps,
            "generator": source,
            "latents": latents,
            "guidance_scale": guidance_scale,
        }
        pictures = any(not isinstance(item, str) for item in images_and_prompts)
        _, schedule = self._check(num_inference_steps, guidance_scale, num_images_per_prompt, pictures)
        for text, name in ((negative_prompt, "negative_prompt"), (negative_prior_prompt, "negative_prior_prompt")):
            if not isinstance(text, (str, type(None))):
                raise UserError(f"{name} is {text!r}: it must be one text, for the whole mix")
        pixels = [item if isinstance(item, str) else self._pixel_values(item) for item in images_and_prompts]
        total = np.zeros((num_images_per_prompt, self.embedding_dim), np.float32)
        for item, weight in zip(pixels, weights):
            embeds = self(item, **options)[0] if isinstance(item, str) else image_embedding(self.models, item)
            total = total + embeds * np.float32(weight)
        if negative_prompt == "" and negative_prior_prompt is None:
            # The reference runs the prior here and throws the result away; its noise is drawn all the same.
            self._draw_unused(schedule, (num_images_per_prompt, self.embedding_dim), latents, source)
            return KandinskyPriorPipelineOutput(total, self.zero_image_embeds(num_images_per_prompt))
        negative = self(negative_prompt, **options)
        return KandinskyPriorPipelineOutput(total, negative[1] if negative_prompt == "" else negative[0])

    @property
    def embedding_dim(self) -> int:
        return self.bundle.constants["clip_mean"].shape[-1]

    def zero_image_embeds(self, rows: int) -> np.ndarray:
        """The image encoder's embedding of an all-zero picture, (rows, E): a constant of the checkpoint."""
        return np.repeat(self.bundle.constants["zero_image_embeds"], rows, axis=0)

    def _check(
        self, steps: int | None, guidance_scale: float | None, num_images_per_prompt: int, pictures: bool = False
    ) -> tuple[Sampling, Schedule]:
        """What a call with these options would run; UserError if it would be refused. pictures: whether it is given some."""
        sampling = Sampling.of(
            self.bundle.manifest.defaults["prior"],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
        )
        manifest = self.bundle.manifest
        graphs = [manifest.find("image_encoder")] if pictures else []
        graphs += [manifest.find("text_encoder"), manifest.find("prior_context")]
        self.require_memory([*graphs, manifest.find("prior", 2 if sampling.guidance.on else 1)])
        return sampling, self.scheduler.schedule(sampling.num_inference_steps)

    def _pixel_values(self, item: Any) -> np.ndarray:
        shape = self.bundle.manifest.find("image_encoder").inputs[0].shape
        if isinstance(item, Image.Image):
            return self.image_processor(item)
        if not isinstance(item, np.ndarray) or item.shape != shape:
            raise UserError(f"images_and_prompts may hold texts, PIL pictures and pixel values of shape {shape}, "
                            f"not {getattr(item, 'shape', type(item).__name__)}")
        return as_floats(item, "a picture in images_and_prompts")

    @staticmethod
    def _draw_unused(schedule: Schedule, shape: tuple[int, ...], latents: np.ndarray | None, source) -> None:
        latents = initial_latents(shape, latents, source, schedule)
        for _ in diffuse(schedule, latents, lambda latents, index: np.zeros_like(latents), source, "prior"):
            pass


def _repeat(items: list, times: int) -> list:
    """Every item `times` times, side by side."""
    return [item for item in items for _ in range(times)]
