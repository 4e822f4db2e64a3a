"""Image embeddings to pictures: diffusion with the UNet, then the MoVQ decoder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..common.options import as_array, as_choice, as_size
from ..diffusion import noise
from ..diffusion.loop import diffuse, finite, initial_latents
from ..diffusion.sinusoid import timestep_embedding
from ..loading.memory_plan import MemoryPlan
from ..loading.models import Models
from ..pictures.images import to_pil
from .base import DiffusionPipeline, Sampling
from .call import Call
from .outputs import ImagePipelineOutput

ONE_GRAY_LEVEL = 1 / 255
GROUP_BYTES = 1 << 26  # of the rows that go together where models are freed in between, so that these are loaded seldom
MOST_GROUPS = 16  # of a call whose steps draw noise, which is drawn again for each group
STATE_COPIES = 16  # arrays of a latent's size that a row takes while it is denoised: by count in schedulers/
PICTURE_COPIES = 4  # float32 arrays of a picture's size that decoding it takes


@dataclass(frozen=True)
class Decoding:
    """What a call of the decoder runs, once its options are checked.

    size: (height, width) in pixels. plan: of the memory, once it was looked at. reservation: of the memory that the call
    takes beside models, as long as this lives.
    """

    sampling: Sampling
    size: tuple[int, int]
    output_type: str
    plan: MemoryPlan | None = None
    reservation: Any = None

    @property
    def keeps(self) -> bool:
        """Whether models stay loaded from one to the next."""
        return self.plan is not None and self.plan.keep_loaded


class KandinskyV22Pipeline(DiffusionPipeline):
    """Image embeddings to pictures."""

    kind = "decoder"
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
        image_embeds = as_array(image_embeds, "image_embeds", self.embedding_dim)
        decoding = self.check(
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
            prompts=len(image_embeds),
        )
        if negative_image_embeds is None:
            negative_image_embeds = self.bundle.constants["zero_image_embeds"]
        negatives = as_array(negative_image_embeds, "negative_image_embeds", self.embedding_dim)
        if len(negatives) not in (1, len(image_embeds)):
            raise UserError(f"negative_image_embeds has {len(negatives)} rows and image_embeds has {len(image_embeds)}: "
                            "give one row, or as many")
        images = self.collect(decoding, self.make(decoding, image_embeds, negatives, noise.source(generator), latents))
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
        scheduler: Any = None,
        prompts: int = 1,
        holds: bool = True,
    ) -> Decoding:
        """What a call with these options runs; UserError if it would be refused.

        For whoever has work to do before the call, as the prior has. prompts: rows of embeddings. holds: whether all
        pictures are in memory at the end.
        """
        as_choice(output_type, ("pil", "np", "latent"), "output_type")
        sampling = self.sampling(num_inference_steps, num_images_per_prompt, guidance_scale, guidance_rescale, guidance_interval,
                                 callback_on_step_end, callback_on_step_end_tensor_inputs, scheduler)
        manifest = self.bundle.manifest
        defaults = manifest.defaults["decoder"]
        size = as_size(defaults["height"] if height is None else height, defaults["width"] if width is None else width,
                       manifest.settings["movq_scale_factor"])
        decoding = Decoding(sampling, size, output_type)
        return self._within_memory(decoding, prompts * sampling.num_images_per_prompt, holds)

    def make(self, decoding: Decoding, image_embeds: np.ndarray, negatives: np.ndarray, source, latents: Any = None) -> Iterator:
        """Pictures one after another, of what `check` has checked: PIL, or an array (H, W, 3), or latents (C, h, w).

        Rows do not depend on each other. A group of them is denoised to its end and decoded before the next one begins,
        with the noise that it has when all are denoised at once.
        """
        sampling = decoding.sampling
        rows = len(image_embeds) * sampling.num_images_per_prompt
        negatives = np.broadcast_to(negatives, image_embeds.shape)
        image_embeds, negatives = (np.repeat(side, sampling.num_images_per_prompt, axis=0) for side in (image_embeds, negatives))
        shape = self.bundle.manifest.find("unet", 1, decoding.size).input("sample").shape[1:]
        latents = initial_latents((rows, *shape), latents, source, sampling.schedule)
        batch, start = noise.SharedBatch(source, rows), 0
        with self.progress.bar(sampling.steps * rows, self.kind) as bar:
            while start < rows:
                group = slice(start, min(start + self._rows_at_once(decoding, rows, batch.asked), rows))
                final = self._denoise(decoding, image_embeds[group], negatives[group], latents[group],
                                      batch.group(group.start, group.stop), bar)
                if decoding.output_type == "latent":
                    yield from final
                else:
                    yield from self._decode(final, decoding, start, rows)
                start = group.stop

    def collect(self, decoding: Decoding, pictures: Iterator) -> Any:
        """All pictures: a list of PIL, or an array (N, H, W, 3), or latents (N, C, h, w)."""
        return list(pictures) if decoding.output_type == "pil" else np.stack(list(pictures))

    @property
    def embedding_dim(self) -> int:
        return self.bundle.constants["clip_mean"].shape[-1]

    def _rows_at_once(self, decoding: Decoding, rows: int, draws: bool) -> int:
        """All, where a callback has to see them; else few, so that memory stays small and pictures come early."""
        if decoding.sampling.callback.function:
            return rows
        fewest = 1 if decoding.keeps else max(1, GROUP_BYTES // self._row_bytes(decoding.size))
        return min(max(fewest, -(-rows // MOST_GROUPS) if draws else 1), rows)

    def _row_bytes(self, size: tuple[int, int]) -> int:
        """What a row takes while it is denoised: copies of its latents, and its context twice."""
        find = self.bundle.manifest.find
        latents, *context = find("unet", 1, size).input("sample"), *find("unet_context").outputs
        return 4 * (STATE_COPIES * math.prod(latents.shape) + 2 * sum(math.prod(tensor.shape) for tensor in context))

    def _denoise(self, decoding: Decoding, image_embeds, negatives, latents, source, bar) -> np.ndarray:
        """The final latents (N, C, h, w): reverse diffusion with the UNet, one row an embedding (N, E).

        The UNet's output channels are epsilon, then variance: guidance is on epsilon only, the variance is the conditional
        one's and reaches the scheduler only if it takes it.
        """
        sampling, channels = decoding.sampling, latents.shape[1]
        call = Call(self, sampling.guidance, sampling.steps, sampling.callback)
        contexts = unet_contexts(self.models, image_embeds, negatives if sampling.guidance.on else None)
        width = self.bundle.manifest.find("unet", 1, decoding.size).input("time_proj").shape[1]
        options = self.bundle.manifest.settings["unet_time_proj"]
        with self.models.lease_batches("unet", decoding.size) as unet:

            def predict(latents: np.ndarray, index: int) -> np.ndarray:
                time_proj = timestep_embedding(sampling.schedule.timesteps[index], width, **options)
                batch = call.guidance.batch(index, sampling.steps)
                run, rows = unet(batch), []
                for latent, context in zip(latents, contexts):
                    context = {name: tensor[-batch:] for name, tensor in context.items()}  # the conditional half is last
                    (output,) = run(sample=np.stack([latent] * batch), time_proj=time_proj, **context)
                    epsilon, variance = output[:, :channels], output[-1:, channels:]
                    epsilon = epsilon if batch == 1 else call.guidance.combine(epsilon[:1], epsilon[1:])
                    rows.append(np.concatenate([epsilon, variance], axis=1) if sampling.learned_variance else epsilon)
                return np.concatenate(rows)

            steps = diffuse(sampling.schedule, latents, predict, source, self.kind)
            return call.follow(steps, bar, {"image_embeds": image_embeds, "negative_image_embeds": negatives})

    def _decode(self, latents: np.ndarray, decoding: Decoding, start: int, rows: int) -> Iterator[Image.Image | np.ndarray]:
        """Pictures of `latents` (N, C, h, w), one after another; the first of them is number `start` of `rows`.

        No model is held while the caller has a picture; where it would be loaded again for each, all are decoded first.
        """
        at_once = 1 if decoding.keeps else len(latents)
        for first in range(0, len(latents), at_once):
            pictures = []
            with self.models.lease("movq_decoder", 1, decoding.size) as run:
                for number, row in enumerate(latents[first : first + at_once], start + first + 1):
                    picture = to_picture(run(latents=row[None])[0], f"{number} of {rows}")
                    pictures.append(picture if decoding.output_type == "np" else to_pil(picture[None])[0])
            yield from pictures

    def _within_memory(self, decoding: Decoding, rows: int, holds: bool) -> Decoding:
        sampling, find, (height, width) = decoding.sampling, self.bundle.manifest.find, decoding.size
        graphs = [find("unet_context")]
        graphs += [find("unet", batch, decoding.size) for batch in sampling.guidance.batches(sampling.steps)]
        graphs += [] if decoding.output_type == "latent" else [find("movq_decoder", 1, decoding.size)]
        latent = 4 * math.prod(find("unet", 1, decoding.size).input("sample").shape)
        picture = {"pil": 3, "np": 12, "latent": 0}[decoding.output_type] * height * width
        group = self._rows_at_once(decoding, rows, draws=True)  # before there is a plan: as if models did not stay
        beside = group * (self._row_bytes(decoding.size) + picture) + PICTURE_COPIES * 12 * height * width
        row_bytes = 2 * latent + (2 if decoding.output_type == "np" else 1) * picture * holds
        plan, reservation = self._require(graphs, beside, rows, row_bytes)
        return replace(decoding, plan=plan, reservation=reservation)


def unet_contexts(models: Models, image_embeds: np.ndarray, negatives: np.ndarray | None) -> list[dict[str, np.ndarray]]:
    """What the UNet needs of each embedding (after its negative, where there are some) and what does not depend on the step."""
    known: dict[bytes, tuple[np.ndarray, ...]] = {}
    with models.lease("unet_context") as run:
        for embeds in (*image_embeds, *(() if negatives is None else negatives)):
            if embeds.tobytes() not in known:
                known[embeds.tobytes()] = finite("unet_context", run(image_embeds=embeds[None]))
    sides = [image_embeds] if negatives is None else [negatives, image_embeds]
    pairs = [[known[embeds.tobytes()] for embeds in row] for row in zip(*sides)]
    return [{name: np.concatenate(tensors) for name, tensors in zip(("time_addition", "added_kv"), zip(*pair))} for pair in pairs]


def to_picture(image: np.ndarray, number: str = "1 of 1") -> np.ndarray:
    """The picture (H, W, 3) in [0, 1] of what the MoVQ gives, (1, 3, H, W) in [-1, 1]. Warns of one that shows nothing, by
    its `number`; UserError if it is not finite."""
    if not np.isfinite(image).all():
        raise UserError("movq_decoder: the picture holds values that are not finite: check the bundle")
    half = np.float32(0.5)
    picture = np.clip(image[0] * half + half, 0, 1).transpose(1, 2, 0)
    if (np.ptp(picture, axis=(0, 1)) < ONE_GRAY_LEVEL).all():
        warnings.warn(f"picture {number} is flat, all of it one color: see with kandinsky-mindir verify whether the bundle is "
                      "right, then try another scheduler, steps or guidance scale", stacklevel=2)
    return picture
