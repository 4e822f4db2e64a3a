"""Image embeddings to pictures: diffusion with the UNet, then the MoVQ decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..bundle.manifest import GraphInfo
from ..bundle.stages import shallow_of
from ..common.errors import UserError
from ..common.options import as_array, as_choice, as_size
from ..diffusion import noise
from ..diffusion.caching import DeepFeatures
from ..diffusion.loop import Step, diffuse
from ..diffusion.sinusoid import timestep_embedding
from ..inputs import conditions
from ..loading.memory_plan import MemoryPlan
from ..pictures.images import to_picture, to_pil
from .base import DiffusionPipeline, Sampling
from .call import NOTHING, Call, Given, Rows
from .encoders import encode_images, unet_contexts
from .outputs import ImagePipelineOutput

GROUP_BYTES = 1 << 26  # of the rows that go together where models are freed in between, so that these are loaded seldom
MOST_GROUPS = 16  # of a call whose steps draw noise, which is drawn again for each group
STATE_COPIES = 16  # arrays of a latent's size that a row takes while it is denoised: by count in schedulers/
PICTURE_COPIES = 4  # float32 arrays of a picture's size that decoding it takes
OPTIONS = ("height", "width", "num_inference_steps", "guidance_scale", "strength", "num_images_per_prompt", "output_type",
           "callback_on_step_end", "callback_on_step_end_tensor_inputs", "guidance_rescale", "guidance_interval",
           "cache_interval", "paste")  # of `check`, among the arguments of a call
READERS = {"image": conditions.images, "mask_image": conditions.masks, "hint": conditions.hints}


@dataclass(frozen=True)
class Decoding:
    """What a call of the decoder runs, once its options are checked.

    size: (height, width) in pixels. paste: whether an inpainting's kept pixels are put back. plan: of the memory, once it was
    looked at. reservation: of the memory that the call takes beside models, as long as this lives.
    """

    sampling: Sampling
    size: tuple[int, int]
    output_type: str
    paste: bool = False
    plan: MemoryPlan | None = None
    reservation: Any = None

    @property
    def keeps(self) -> bool:
        """Whether models stay loaded from one to the next."""
        return self.plan is not None and self.plan.keep_loaded


class KandinskyV22Pipeline(DiffusionPipeline):
    """Image embeddings to pictures."""

    kind = "decoder"
    unet = "unet"  # the stage of its steps
    maps: tuple[str, ...] = ()  # the stage of what the UNet is shown beside latents
    takes: tuple[str, ...] = ()  # the fields of Given that it needs
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
        cache_interval: int = 1,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `image_embeds` (N, E), guided away from `negative_image_embeds` (without: the zero picture's).

        height, width: pixels, rounded up to what the MoVQ can make. output_type: "pil", "np" (N, H, W, 3 in [0, 1]) or
        "latent" (N x num_images_per_prompt, C, h, w). guidance_rescale, guidance_interval: see `Guidance`.
        cache_interval: of so many calls of the UNet one is whole (see `DeepFeatures`), in a bundle with shallow graphs.
        """
        return self._call(locals())

    def _call(self, arguments: Mapping[str, Any]) -> ImagePipelineOutput | tuple:
        """A call, from its arguments by name."""
        image_embeds = as_array(arguments["image_embeds"], "image_embeds", self.embedding_dim)
        negatives = arguments["negative_image_embeds"]
        negatives = self.bundle.constants["zero_image_embeds"] if negatives is None else negatives
        negatives = as_array(negatives, "negative_image_embeds", self.embedding_dim)
        if len(negatives) not in (1, len(image_embeds)):
            raise UserError(f"negative_image_embeds has {len(negatives)} rows and image_embeds has {len(image_embeds)}: "
                            "give one row, or as many")
        given = self.given(arguments, self.size(arguments["height"], arguments["width"]))
        options = {name: arguments[name] for name in OPTIONS if name in arguments}
        decoding = self.check(**options, prompts=max(len(image_embeds), given.count))
        source, latents = noise.source(arguments["generator"]), arguments.get("latents")
        images = self.collect(decoding, self.make(decoding, image_embeds, negatives, source, latents, given))
        return ImagePipelineOutput(images) if arguments["return_dict"] else (images,)

    def size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """(height, width) of the pictures that are made where these are asked for."""
        manifest = self.bundle.manifest
        defaults = manifest.defaults[self.kind]
        return as_size(defaults["height"] if height is None else height, defaults["width"] if width is None else width,
                       manifest.settings["movq_scale_factor"])

    def given(self, pictures: Mapping[str, Any], size: tuple[int, int]) -> Given:
        """What a call is given, by the names in `takes`, as its models take it."""
        return Given(**{name: READERS[name](pictures[name], size) for name in self.takes})

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
        cache_interval: int = 1,
        scheduler: Any = None,
        strength: float = 1.0,
        paste: bool = False,
        prompts: int = 1,
        holds: bool = True,
    ) -> Decoding:
        """What a call with these options runs; UserError if it would be refused.

        For whoever has work to do before the call, as the prior has. prompts: rows of embeddings. holds: whether all
        pictures are in memory at the end.
        """
        as_choice(output_type, ("pil", "np", "latent"), "output_type")
        sampling = self.sampling(num_inference_steps, num_images_per_prompt, guidance_scale, guidance_rescale, guidance_interval,
                                 callback_on_step_end, callback_on_step_end_tensor_inputs, scheduler, strength, cache_interval)
        decoding = Decoding(sampling, self.size(height, width), output_type, paste)
        return self._within_memory(decoding, prompts * sampling.num_images_per_prompt, holds)

    def make(
        self, decoding: Decoding, image_embeds: np.ndarray, negatives: np.ndarray, source, latents=None, given: Given = NOTHING
    ) -> Iterator:
        """Pictures one after another, of what `check` has checked: PIL, or an array (H, W, 3), or latents (C, h, w).

        Rows do not depend on each other. A group of them is denoised to its end and decoded before the next one begins,
        with the noise that it has when all are denoised at once.
        """
        sampling = decoding.sampling
        all_rows = self._rows(decoding, image_embeds, negatives, source, latents, given)
        batch, start = noise.SharedBatch(source, rows := len(all_rows.latents)), 0
        with self.progress.bar(sampling.run * rows, self.kind) as bar:
            while start < rows:
                group = slice(start, min(start + self.rows_at_once(decoding, rows, batch.asked), rows))
                final = self._denoise(decoding, all_rows[group], batch.group(group.start, group.stop), bar)
                if decoding.output_type == "latent":
                    yield from final
                else:
                    yield from self._decode(final, decoding, start, rows, given)
                start = group.stop

    def collect(self, decoding: Decoding, pictures: Iterator) -> Any:
        """All pictures: a list of PIL, or an array (N, H, W, 3), or latents (N, C, h, w)."""
        return list(pictures) if decoding.output_type == "pil" else np.stack(list(pictures))

    def _rows(self, decoding: Decoding, image_embeds, negatives, source, latents: Any, given: Given) -> Rows:
        """What the pictures begin with; the first noise is drawn here."""
        count, sampling = max(len(image_embeds), given.count), decoding.sampling
        sides = {"image_embeds": image_embeds, "negative_image_embeds": negatives, **vars(given)}
        for name, side in sides.items():
            if side is not None and len(side) not in (1, count):
                raise UserError(f"{name} has {len(side)} rows and the call makes {count} pictures: give one for all, or as many")

        def rows(side: np.ndarray) -> np.ndarray:
            return np.repeat(np.broadcast_to(side, (count, *side.shape[1:])), sampling.num_images_per_prompt, axis=0)

        shape = (count * sampling.num_images_per_prompt, *self._latent_shape(decoding.size))
        encoded = None if given.image is None else rows(encode_images(self.models, given.image, decoding.size))
        first = self._first(sampling, shape, latents, source, encoded)
        return Rows(rows(image_embeds), rows(negatives), first, encoded, hint=None if given.hint is None else rows(given.hint))

    def _latent_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return self.bundle.manifest.find(self.unet, 1, size).input("sample").shape[1:]

    @property
    def embedding_dim(self) -> int:
        return self.bundle.constants["clip_mean"].shape[-1]

    def rows_at_once(self, decoding: Decoding, rows: int, draws: bool) -> int:
        """All, where a callback has to see them; else few, so that memory stays small and pictures come early."""
        if decoding.sampling.callback.function:
            return rows
        fewest = 1 if decoding.keeps else max(1, GROUP_BYTES // self._row_bytes(decoding.size))
        return min(max(fewest, -(-rows // MOST_GROUPS) if draws else 1), rows)

    def _row_bytes(self, size: tuple[int, int]) -> int:
        """What a row takes while it is denoised: copies of its latents, and its context twice."""
        find = self.bundle.manifest.find
        graphs = find(f"{self.unet}_context"), *(find(name, 1, size) for name in self.maps)
        context = [tensor for graph in graphs for tensor in graph.outputs]
        context += find(self.unet, 2, size).outputs[1:]  # what whole steps keep, in a bundle with shallow graphs
        return 4 * (STATE_COPIES * math.prod(self._latent_shape(size)) + 2 * sum(math.prod(tensor.shape) for tensor in context))

    def _denoise(self, decoding: Decoding, rows: Rows, source, bar) -> np.ndarray:
        """The final latents (N, C, h, w): reverse diffusion with the UNet, one row an embedding (N, E).

        The UNet's output channels are epsilon, then variance: guidance is on epsilon only, the variance is the conditional
        one's and reaches the scheduler only if it takes it.
        """
        sampling, channels = decoding.sampling, rows.latents.shape[1]
        call = Call(self, sampling.guidance, sampling.run, sampling.callback)
        contexts = unet_contexts(self.models, self.unet, rows.image_embeds, rows.negatives if sampling.guidance.on else None)
        for context, added_map in zip(contexts, self._maps(rows, decoding.size)):
            context["added_map"] = added_map
        width = self.bundle.manifest.find(self.unet, 1, decoding.size).input("time_proj").shape[1]
        options = self.bundle.manifest.settings[f"{self.unet}_time_proj"]
        deep = DeepFeatures(sampling.cache_interval)
        with self.models.lease_in_turns(decoding.size) as lease:

            def predict(latents: np.ndarray, index: int) -> np.ndarray:
                time_proj = timestep_embedding(sampling.schedule.timesteps[index], width, **options)
                batch = call.guidance.batch(index, sampling.steps)
                whole = deep.whole(index - sampling.start, batch)
                run, outputs, kept = lease(self.unet if whole else shallow_of(self.unet), batch), [], []
                for picture, (latent, context) in enumerate(zip(latents, contexts)):
                    context = {name: tensor[-batch:] for name, tensor in context.items()}  # the conditional half is last
                    context = context if whole else deep.given(context, picture)
                    output, *features = run(sample=np.stack([latent] * batch), time_proj=time_proj, **context)
                    kept += features
                    epsilon, variance = output[:, :channels], output[-1:, channels:]
                    epsilon = epsilon if batch == 1 else call.guidance.combine(epsilon[:1], epsilon[1:])
                    outputs.append(np.concatenate([epsilon, variance], axis=1) if sampling.learned_variance else epsilon)
                if whole:
                    deep.keep(kept)
                return np.concatenate(outputs)

            steps = diffuse(sampling.schedule, rows.latents, predict, source, self.kind, sampling.start)
            steps = self._steps(steps, rows, sampling)
            return call.follow(steps, bar, {"image_embeds": rows.image_embeds, "negative_image_embeds": rows.negatives})

    def _maps(self, rows: Rows, size: tuple[int, int]) -> Sequence[np.ndarray]:
        """What the UNet adds after its conv_in, (1, h, w, channels) for each row; nothing here."""
        return ()

    def _steps(self, steps: Iterator[Step], rows: Rows, sampling: Sampling) -> Iterator[Step]:
        return steps

    def _finished(self, picture: np.ndarray, row: int, decoding: Decoding, given: Given) -> np.ndarray:
        return picture

    def _decode(self, latents: np.ndarray, decoding: Decoding, start: int, rows: int, given: Given) -> Iterator:
        """Pictures of `latents` (N, C, h, w), one after another; the first of them is number `start` of `rows`.

        No model is held while the caller has a picture; where it would be loaded again for each, all are decoded first.
        """
        at_once = 1 if decoding.keeps else len(latents)
        for first in range(0, len(latents), at_once):
            pictures = []
            with self.models.lease("movq_decoder", 1, decoding.size) as run:
                for number, row in enumerate(latents[first : first + at_once], start + first + 1):
                    picture = to_picture(run(latents=row[None])[0], f"{number} of {rows}")
                    picture = self._finished(picture, number - 1, decoding, given)
                    pictures.append(picture if decoding.output_type == "np" else to_pil(picture[None])[0])
            yield from pictures

    def graphs(self, sampling: Sampling, size: tuple[int, int], output_type: str = "pil") -> list[GraphInfo]:
        """The graphs that a call runs, in order."""
        find = self.bundle.manifest.find
        graphs = [find("movq_encoder", 1, size)] if "image" in self.takes else []
        graphs += [find(f"{self.unet}_context"), *(find(name, 1, size) for name in self.maps),
                   *(find(self.unet, batch, size) for batch in sampling.batches)]
        if sampling.cache_interval > 1:
            if not self.bundle.manifest.has(shallow := shallow_of(self.unet)):
                raise UserError(f"cache_interval is {sampling.cache_interval}, and {self.bundle.path} has no {shallow}: "
                                "export it again with --shallow, or leave it at 1")
            graphs += [find(shallow, batch, size) for batch in sampling.batches]
        return graphs if output_type == "latent" else [*graphs, find("movq_decoder", 1, size)]

    def _within_memory(self, decoding: Decoding, rows: int, holds: bool) -> Decoding:
        height, width = decoding.size
        graphs = self.graphs(decoding.sampling, decoding.size, decoding.output_type)
        latent = 4 * math.prod(self._latent_shape(decoding.size))
        picture = {"pil": 3, "np": 12, "latent": 0}[decoding.output_type] * height * width
        group = self.rows_at_once(decoding, rows, draws=True)  # before there is a plan: as if models did not stay
        beside = group * (self._row_bytes(decoding.size) + picture) + PICTURE_COPIES * 12 * height * width
        row_bytes = 2 * latent + (2 if decoding.output_type == "np" else 1) * picture * holds
        plan, reservation = self._require(graphs, beside, rows, row_bytes)
        return replace(decoding, plan=plan, reservation=reservation)
