"""Text, pictures and mixes of them to image embeddings: diffusion with the prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..common.options import as_choice, as_floats, as_text, as_texts, as_weights
from ..diffusion import noise
from ..diffusion.loop import diffuse, initial_latents
from ..diffusion.sinusoid import timestep_embedding
from ..inputs.preprocessing import ImageProcessor
from ..loading.models import Models, Reservation
from .base import DiffusionPipeline, Sampling
from .call import Call
from .encoders import Text, embed_pictures, encode_texts, prior_contexts, text_bytes
from .outputs import KandinskyPriorPipelineOutput, MixEmbeddings

MOST_CONTEXTS = 1 << 29  # bytes of texts' contexts that are in memory at once; more texts are embedded after one another
ROW_COPIES = 12  # arrays of an embedding's size that a row takes while it is denoised and after: by count in schedulers/


class Run(NamedTuple):
    """Embeddings that are denoised together.

    rows: the text of each, after its unconditional text where it is guided. latents: (rows, E), None to draw them.
    """

    rows: Sequence[tuple[str, ...]]
    source: noise.NoiseSource
    latents: np.ndarray | None = None

    @property
    def texts(self) -> list[str]:
        """Each text once, in order."""
        return list(dict.fromkeys(text for row in self.rows for text in row))


class KandinskyV22PriorPipeline(DiffusionPipeline):
    """Text, or a weighted mix of texts and pictures, to image embeddings."""

    kind = "prior"
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
        sampling = self.sampling(num_inference_steps, num_images_per_prompt, guidance_scale, callback=callback_on_step_end,
                                 callback_tensors=callback_on_step_end_tensor_inputs)
        prompts = as_texts(prompt, "prompt")
        negatives = None if negative_prompt is None else as_texts(negative_prompt, "negative_prompt")
        if negatives is not None and len(negatives) != len(prompts):
            raise UserError(f"negative_prompt has {len(negatives)} texts and prompt has {len(prompts)}: give one for each")
        source = noise.source(generator)
        with self.require(sampling, [*prompts, *(negatives or ())], len(rows_of(sampling, prompts, negatives))):
            output = self.embed_prompts(sampling, prompts, negatives, source, latents)
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
        """Embeddings of a mix: `embed`, then `mix`. Returns (num_images_per_prompt, E) float32 twice."""
        weights = as_weights(weights, images_and_prompts)
        embeddings = self.embed(images_and_prompts, num_images_per_prompt, num_inference_steps, generator, latents,
                                negative_prior_prompt, negative_prompt, guidance_scale)
        return self.mix(embeddings, weights)

    def embed(
        self,
        images_and_prompts: list[str | Image.Image | np.ndarray],
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        generator: Any = None,
        latents: np.ndarray | None = None,
        negative_prior_prompt: str | None = None,
        negative_prompt: str = "",
        guidance_scale: float | None = None,
    ) -> MixEmbeddings:
        """What `mix` mixes, with any weights: the embeddings of each item and of the negative prompt.

        Items are texts, pictures, or preprocessed pixel values (1, 3, S, S). All texts draw from the same generator, one
        after another, or start from the same `latents`. Each model is loaded once.
        """
        sampling = self.sampling(num_inference_steps, num_images_per_prompt, guidance_scale)
        items = self.as_items(images_and_prompts)
        for text, name in ((negative_prompt, "negative_prompt"), (negative_prior_prompt, "negative_prior_prompt")):
            if not isinstance(text, (str, type(None))):
                raise UserError(f"{name} is {text!r}: it must be one text, for the whole mix")
        source = noise.source(generator)
        texts = [*(item for item in items if isinstance(item, str)), negative_prompt or "", negative_prior_prompt or ""]
        with self.require(sampling, texts, 2 * len(items) * sampling.num_images_per_prompt, len(texts) < len(items) + 2):
            return self.embed_items(sampling, items, negative_prompt or "", negative_prior_prompt, source, latents)

    def mix(self, embeddings: MixEmbeddings, weights: Sequence[float]) -> KandinskyPriorPipelineOutput:
        """Each item's embedding times its weight, summed (weights need not add to 1)."""
        total = np.zeros_like(embeddings.item_embeds[0])
        for embeds, weight in zip(embeddings.item_embeds, as_weights(weights, list(embeddings.item_embeds))):
            total = total + embeds * np.float32(weight)
        return KandinskyPriorPipelineOutput(total, embeddings.negative_image_embeds)

    @property
    def embedding_dim(self) -> int:
        return self.bundle.constants["clip_mean"].shape[-1]

    def zero_image_embeds(self, rows: int) -> np.ndarray:
        """The image encoder's embedding of an all-zero picture, (rows, E): a constant of the checkpoint."""
        return np.repeat(self.bundle.constants["zero_image_embeds"], rows, axis=0)

    def as_items(self, images_and_prompts: Any) -> list[str | np.ndarray]:
        """The items of a mix: texts as they are, pictures as pixel values."""
        if not isinstance(images_and_prompts, (list, tuple)) or not images_and_prompts:
            raise UserError("images_and_prompts must be a list with at least one text or picture")
        return [as_text(item, "a text in images_and_prompts") if isinstance(item, str) else self._pixel_values(item)
                for item in images_and_prompts]

    def embed_prompts(
        self, sampling: Sampling, prompts: Sequence[str], negatives: Sequence[str] | None, source, latents: Any = None
    ) -> KandinskyPriorPipelineOutput:
        """As a call, whose options have been checked. As many prompts as memory holds the contexts of go together."""
        images = sampling.num_images_per_prompt
        count, parts = len(prompts) * images, 1 if negatives is None else 2
        rows = rows_of(sampling, prompts, negatives)
        latents = self._first(sampling, (len(rows), self.embedding_dim), latents, source)
        batch, order = noise.SharedBatch(source, count), np.arange(len(rows)).reshape(parts, count)
        runs = []
        for start in range(0, count, at_once := self._prompts_at_once(sampling, prompts, negatives) * images):
            group = order[:, start : start + at_once]
            runs.append(Run([rows[row] for row in group.flat], batch.group(start, start + group.shape[1]), latents[group.flat]))
        embeds = np.concatenate([run.reshape(parts, -1, self.embedding_dim) for run in self.embed_runs(sampling, runs)], axis=1)
        return KandinskyPriorPipelineOutput(embeds[0], self.zero_image_embeds(count) if negatives is None else embeds[1])

    def embed_items(
        self, sampling: Sampling, items: Sequence[str | np.ndarray], negative: str, negative_prior: str | None, source,
        latents: Any = None,
    ) -> MixEmbeddings:  # fmt: skip
        """As `embed`, whose options have been checked.

        Without negative prompts the reference runs the prior once more and throws the result away; its noise is drawn here.
        """
        images, negatives = sampling.num_images_per_prompt, None if negative_prior is None else [negative_prior]
        shape = (images if negatives is None else 2 * images, self.embedding_dim)
        initial = None if latents is None else initial_latents(shape, latents, source, sampling.schedule)
        plain = negative == "" and negatives is None
        texts = [item for item in items if isinstance(item, str)] + ([] if plain else [negative])
        runs = [Run(rows_of(sampling, [text], negatives), source, initial) for text in texts]
        embeds = iter(self.embed_runs(sampling, runs))
        pictures = iter(embed_pictures(self.models, [item for item in items if not isinstance(item, str)]))
        found = [next(embeds)[:images] if isinstance(item, str) else np.repeat(next(pictures), images, axis=0) for item in items]
        if plain:
            start = initial_latents(shape, latents, source, sampling.schedule)
            for _ in diffuse(sampling.schedule, start, lambda latents, index: np.zeros_like(latents), source, self.kind):
                pass
            return MixEmbeddings(np.stack(found), self.zero_image_embeds(images))
        last = next(embeds)
        return MixEmbeddings(np.stack(found), last[:images] if negative != "" else last[images:])

    def embed_runs(self, sampling: Sampling, runs: Sequence[Run]) -> list[np.ndarray]:
        """The embeddings (rows, E) of each run, one run after another; each model is loaded once for texts whose contexts
        fit into MOST_CONTEXTS."""
        if not runs:
            return []
        texts, embeds = encode_texts(self.models, (text for run in runs for text in run.texts)), []
        with self.progress.bar(sampling.run * sum(len(run.rows) for run in runs), self.kind) as bar:
            for some in self._within_memory(runs):
                contexts = prior_contexts(self.models, {text: texts[text] for run in some for text in run.texts})
                with self.models.lease("prior", 2 if sampling.guidance.on else 1) as prior:
                    embeds += [self._denoise(sampling, run, texts, contexts, prior, bar) for run in some]
        return embeds

    def _denoise(self, sampling: Sampling, run: Run, texts, contexts, prior, bar) -> np.ndarray:
        """The embeddings (rows, E) of a run: reverse diffusion with the graph `prior`, then the checkpoint's scale."""
        call = Call(self, sampling.guidance, sampling.run, sampling.callback)
        latents = run.latents
        if latents is None:
            latents = initial_latents((len(run.rows), self.embedding_dim), None, run.source, sampling.schedule)
        inputs = {
            row: {
                "context": np.concatenate([contexts[text] for text in row], axis=1),
                "text_mask": np.concatenate([texts[text].text_mask for text in row]),
            }
            for row in set(run.rows)
        }
        width = self.bundle.manifest.find("prior").input("time_proj").shape[1]
        options = self.bundle.manifest.settings["prior_time_proj"]

        def predict(latents: np.ndarray, index: int) -> np.ndarray:
            time_proj, rows = timestep_embedding(sampling.schedule.timesteps[index], width, **options), []
            for latent, row in zip(latents, run.rows):
                (embeds,) = prior(latents=np.stack([latent] * len(row)), time_proj=time_proj, **inputs[row])
                rows.append(call.guidance.combine(embeds[:1], embeds[1:]) if call.guidance.on else embeds[-1:])
            return np.concatenate(rows)

        steps = diffuse(sampling.schedule, latents, predict, run.source, self.kind, sampling.start)
        embeds = call.follow(steps, bar, _tensors(run, texts) if sampling.callback.function else {})
        return embeds * self.bundle.constants["clip_std"] + self.bundle.constants["clip_mean"]

    def require(self, sampling: Sampling, texts: Sequence[str], rows: int, pictures: bool = False) -> Reservation:
        """UserError if `texts` cannot be embedded, in `rows` embeddings, in the memory that there is for it."""
        text, context = text_bytes(self.bundle)
        distinct = len({*texts, ""})
        contexts = distinct if sampling.callback.function else min(distinct, max(3, MOST_CONTEXTS // context))
        find = self.bundle.manifest.find
        graphs = [find("image_encoder")] if pictures else []
        graphs += [find("text_encoder"), find("prior_context"), find("prior", 2 if sampling.guidance.on else 1)]
        beside = distinct * text + (contexts + 2) * context
        return self.require_memory(graphs, beside, rows, ROW_COPIES * 4 * self.embedding_dim)

    def _prompts_at_once(self, sampling: Sampling, prompts: Sequence[str], negatives: Sequence[str] | None) -> int:
        """How many prompts are embedded together: all, where a callback has to see them, or where memory holds all contexts."""
        most = MOST_CONTEXTS // text_bytes(self.bundle)[1]
        if sampling.callback.function or len({*prompts, *(negatives or ()), ""}) <= most:
            return len(prompts)
        return max((most - 1) // (1 if negatives is None else 2), 1)

    def _within_memory(self, runs: Sequence[Run]) -> Iterator[list[Run]]:
        """`runs` in order, as many together as memory holds the contexts of."""
        most = MOST_CONTEXTS // text_bytes(self.bundle)[1]
        some: list[Run] = []
        for run in runs:
            if some and len({text for each in (*some, run) for text in each.texts}) > most:
                yield some
                some = []
            some.append(run)
        yield some

    def _pixel_values(self, item: Any) -> np.ndarray:
        shape = self.bundle.manifest.find("image_encoder").inputs[0].shape
        if isinstance(item, Image.Image):
            return self.image_processor(item)
        if not isinstance(item, np.ndarray) or item.shape != shape:
            raise UserError(f"images_and_prompts may hold texts, PIL pictures and pixel values of shape {shape}, "
                            f"not {getattr(item, 'shape', type(item).__name__)}")
        return as_floats(item, "a picture in images_and_prompts")


def embed_text_request(prior, request, prompts, sampling, source, latents) -> KandinskyPriorPipelineOutput:
    """The image embeddings of a request's prompts: the task "text2image"."""
    return prior.embed_prompts(sampling, prompts, request.negative_prompt, source, latents)


def embed_mix_request(prior, request, items, sampling, source, latents) -> KandinskyPriorPipelineOutput:
    """The image embeddings of a request's mix: the task "interpolate"."""
    (negative,) = request.negative_prompt or ("",)
    embeddings = prior.embed_items(sampling, prior.as_items(items), negative, request.negative_prior_prompt, source, latents)
    return prior.mix(embeddings, [item.weight for item in request.items])


def rows_of(sampling: Sampling, prompts: Sequence[str], negatives: Sequence[str] | None) -> list[tuple[str, ...]]:
    """The rows of a run: prompts, then negative prompts, each text once for each of its pictures and, with guidance, after
    its unconditional text: its negative prompt or, where there is none, ""."""
    def repeated(texts: Sequence[str]) -> list[str]:
        return [text for text in texts for _ in range(sampling.num_images_per_prompt)]

    if negatives is None:
        return [("", text) if sampling.guidance.on else (text,) for text in repeated(prompts)]
    if not sampling.guidance.on:
        return [(text,) for text in repeated([*prompts, *negatives])]
    return list(zip(repeated(negatives) * 2, repeated([*prompts, *negatives])))


def _tensors(run: Run, texts: Mapping[str, Text]) -> dict[str, np.ndarray]:
    """What a callback can see of the texts of a run: the unconditional rows first, as in the reference."""
    both = [texts[text] for side in zip(*run.rows) for text in side]
    names = {"prompt_embeds": "text_embeds", "text_encoder_hidden_states": "text_hidden_states", "text_mask": "text_mask"}
    return {name: np.concatenate([getattr(text, field) for text in both]) for name, field in names.items()}
