"""A request to pictures: the prior, then the decoder, on one source of noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from ..diffusion import noise
from ..inputs.items import named, with_brought, with_pictures
from ..loading.models import Models
from ..request import DECODERS, STRENGTH, TASKS, Request, defaults_of
from ..schedulers import Scheduler, describe
from .base import Pipeline, Sampling
from .call import Given
from .decoder import Decoding, KandinskyV22Pipeline
from .img2img import KandinskyV22Img2ImgPipeline, Pictures
from .inpaint import KandinskyV22InpaintPipeline
from .outputs import ImagePipelineOutput, Picture
from .prior import KandinskyV22PriorPipeline

# Arguments of the combined calls: fields of the request, and options of `check`.
FIELDS = ("prompt", "negative_prompt", "num_images_per_prompt", "num_inference_steps", "prior_num_inference_steps",
          "guidance_scale", "prior_guidance_scale", "guidance_rescale", "guidance_interval", "cache_interval", "height", "width",
          "strength", "paste")  # fmt: skip
OPTIONS = ("output_type", "prior_callback_on_step_end", "prior_callback_on_step_end_tensor_inputs", "callback_on_step_end",
           "callback_on_step_end_tensor_inputs")  # fmt: skip


class KandinskyV22CombinedPipeline(Pipeline):
    """Prompt straight to picture, and any other request: the prior pipeline, then the decoder pipeline."""

    decoder: type[KandinskyV22Pipeline] = KandinskyV22Pipeline

    def __init__(self, models: Models):
        super().__init__(models)
        self.prior_pipe = KandinskyV22PriorPipeline(models)
        self.decoder_pipe = self.decoder(models)

    @property
    def scheduler(self) -> Scheduler:
        """The decoder's sampler: see `DiffusionPipeline.scheduler`."""
        return self.decoder_pipe.scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler | str) -> None:
        self.decoder_pipe.scheduler = scheduler

    def set_progress_bar_config(self, **options: Any) -> None:
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
        cache_interval: int = 1,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `prompt`: arguments of both pipelines; `latents` are the prior's, as in the reference."""
        return self._call(locals())

    def _call(self, arguments: Mapping[str, Any]) -> ImagePipelineOutput | tuple:
        """A call, from its arguments by name."""
        fields = {name: arguments[name] for name in FIELDS if name in arguments}
        pictures = {name: arguments[name] for name in self.decoder.takes}
        brought: dict[str, Any] = {name: named(value, name) for name, value in pictures.items()}
        request, opened = with_brought(Request(task="text2image", **fields, **brought), pictures)
        options = {name: arguments[name] for name in OPTIONS}
        sampling, decoding = self.check(request, holds=True, **options)
        given, source = self._given(request, opened, decoding), noise.source(arguments["generator"])
        images = self._images(request, request.prompt, given, sampling, decoding, source, arguments["latents"])
        images = self.decoder_pipe.collect(decoding, images)
        return ImagePipelineOutput(images) if arguments["return_dict"] else (images,)

    def make(
        self,
        request: Request,
        *,
        generator: Any = None,
        latents: np.ndarray | None = None,
        pictures: Sequence[Image.Image] | None = None,
        brought: Mapping[str, Any] | None = None,
        output_type: str = "pil",
        holds: bool = False,
        **callbacks: Any,
    ) -> Iterator[Picture]:
        """The pictures of `request`, each as soon as it is finished, with the request that makes it again alone.

        What the request leaves open is the bundle's default. generator: instead of the request's seed. latents: the
        prior's. pictures: those that a mix mixes, in order, instead of the paths in its items. brought: by
        the names of the request's fields, pictures or arrays instead of the paths there. holds: whether the caller
        keeps all pictures in memory, which is counted. callbacks: as of a call. All that can be refused, is refused here,
        before the first picture is asked for.
        """
        request, items = with_pictures(self.complete(request), pictures)
        request, opened = with_brought(request, brought or {})
        if isinstance(generator, (int, np.integer)):
            request, generator = request.replace(seed=generator, rng="numpy"), None
        source = request.noise_source() if generator is None else noise.source(generator)
        if generator is not None and request.row is not None:
            source = noise.OneOfBatch(source, request.row, request.rows)
        sampling, decoding = self.check(request, output_type=output_type, holds=holds, **callbacks)
        given = self._given(request, opened, decoding)
        images = self._images(request, items, given, sampling, decoding, source, latents)
        return (Picture(image, row, request.alone(row) if generator is None else None) for row, image in enumerate(images))

    def complete(self, request: Request) -> Request:
        """The same with what it leaves open: the bundle's defaults, the samplers of this pipeline, and a seed."""
        decoder = self.decoder_of(request)
        given = {"scheduler": request.scheduler or decoder.scheduler, "prior_scheduler": request.prior_scheduler}
        if request.prior_scheduler is None and describe(self.prior_pipe.scheduler) != describe(self.prior_pipe.default_scheduler):
            given["prior_scheduler"] = self.prior_pipe.scheduler
        pipes = {"scheduler": decoder, "prior_scheduler": self.prior_pipe}
        changes = {name: describe(pipes[name].as_scheduler(value)) for name, value in given.items() if value is not None}
        return request.replace(**changes).complete(defaults_of(self.bundle.manifest, decoder.kind))

    def check(
        self,
        request: Request,
        *,
        output_type: str = "pil",
        holds: bool = False,
        prior_callback_on_step_end: Callable | None = None,
        prior_callback_on_step_end_tensor_inputs: list[str] | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> tuple[Sampling, Decoding]:
        """What `request` would run: of the prior, and of the decoder. UserError if it would be refused."""
        prior, decoder = self.prior_pipe, self.decoder_of(request)
        sampling = prior.sampling(
            request.prior_num_inference_steps,
            request.num_images_per_prompt,
            request.prior_guidance_scale,
            callback=prior_callback_on_step_end,
            callback_tensors=prior_callback_on_step_end_tensor_inputs,
            scheduler=None if request.prior_scheduler is None else prior.as_scheduler(request.prior_scheduler),
        )
        texts = [item.text for item in request.items if item.text is not None]
        texts += [*request.prompt, *(request.negative_prompt or ()), request.negative_prior_prompt or ""]
        pictures = any(item.text is None for item in request.items)
        reservation = prior.require(sampling, texts, 2 * request.count * max(len(request.items), 1), pictures)
        decoding = decoder.check(
            height=request.height,
            width=request.width,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            guidance_rescale=request.guidance_rescale,
            guidance_interval=request.guidance_interval,
            cache_interval=request.cache_interval,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            scheduler=None if request.scheduler is None else decoder.as_scheduler(request.scheduler),
            paste=request.paste,
            strength=1.0 if request.strength is None else request.strength,
            prompts=request.count,
            holds=holds,
        )
        return sampling, replace(decoding, reservation=(reservation, decoding.reservation))

    def decoder_of(self, request: Request) -> KandinskyV22Pipeline:
        """The decoder's pipeline for what `request` brings; with the sampler of this one."""
        module, name = DECODERS[request.brings].split(":")
        cls = getattr(import_module(module, __package__), name)
        if type(self.decoder_pipe) is cls:
            return self.decoder_pipe
        decoder = cls(self.models)
        decoder.progress = self.decoder_pipe.progress
        if describe(self.scheduler) != describe(self.decoder_pipe.default_scheduler):  # somebody chose it
            decoder.scheduler = self.scheduler
        return decoder

    def _given(self, request: Request, opened: Mapping[str, list], decoding: Decoding) -> Given:
        """What the request brings, as models take it. Each of several belongs to a prompt, and to all pictures of it."""
        each = request.num_images_per_prompt
        repeated = {name: found if len(found) == 1 else [picture for picture in found for _ in range(each)]
                    for name, found in opened.items()}
        return self.decoder_of(request).given(repeated, decoding.size)

    def _images(
        self, request: Request, items: Sequence, given: Given, sampling: Sampling, decoding: Decoding, source, latents
    ) -> Iterator:
        module, function = TASKS[request.task].embed.split(":")
        embed = getattr(import_module(module, __package__), function)
        image_embeds, negatives = embed(self.prior_pipe, request, items, sampling, source, latents)
        yield from self.decoder_of(request).make(decoding, image_embeds, negatives, source, given=given)


class KandinskyV22InpaintCombinedPipeline(KandinskyV22CombinedPipeline):
    """Prompt, picture and mask straight to pictures."""

    decoder = KandinskyV22InpaintPipeline

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        prompt: str | list[str],
        image: Pictures,
        mask_image: Pictures,
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
        cache_interval: int = 1,
        paste: bool = False,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `prompt` where `mask_image` is white, and `image` elsewhere: one for all prompts, or one for each."""
        return self._call(locals())


class KandinskyV22Img2ImgCombinedPipeline(KandinskyV22CombinedPipeline):
    """Prompt and picture straight to pictures."""

    decoder = KandinskyV22Img2ImgPipeline

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        prompt: str | list[str],
        image: Pictures,
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float = STRENGTH,
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
        cache_interval: int = 1,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `prompt` that start from `image`: one for all prompts, or one for each, and for all pictures of it.

        Arguments are those of both pipelines; `latents` are the prior's, as in the reference.
        """
        return self._call(locals())


class AutoPipelineForText2Image:
    """diffusers' name for the pipeline of this task."""

    from_pretrained = KandinskyV22CombinedPipeline.from_pretrained
    from_pipe = KandinskyV22CombinedPipeline.from_pipe


class AutoPipelineForImage2Image:
    """diffusers' name for the pipeline of this task."""

    from_pretrained = KandinskyV22Img2ImgCombinedPipeline.from_pretrained
    from_pipe = KandinskyV22Img2ImgCombinedPipeline.from_pipe


class AutoPipelineForInpainting:
    """diffusers' name for the pipeline of this task."""

    from_pretrained = KandinskyV22InpaintCombinedPipeline.from_pretrained
    from_pipe = KandinskyV22InpaintCombinedPipeline.from_pipe
