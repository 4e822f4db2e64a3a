"""Text and a picture, or an embedding, to image embeddings: the prior starts from the picture's embedding, made noisy."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..common.options import as_array, as_choice, as_texts
from ..diffusion import noise
from ..diffusion.loop import as_latents
from ..inputs.conditions import as_list
from ..pictures.images import load_image
from .base import Sampling
from .encoders import embed_pictures
from .outputs import KandinskyPriorPipelineOutput
from .prior import KandinskyV22PriorPipeline, rows_of


class KandinskyV22PriorEmb2EmbPipeline(KandinskyV22PriorPipeline):
    """Text and a picture to image embeddings.

    After diffusers 0.42.1, pipelines/kandinsky2_2/pipeline_kandinsky2_2_prior_emb2emb.py. Where that is wrong, it is right
    here: a strength of no step is refused, one picture serves all prompts, and `interpolate` takes texts.
    """

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        prompt: str | list[str],
        image: Image.Image | np.ndarray | str | list,
        strength: float = 0.3,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        generator: Any = None,
        guidance_scale: float | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        normalize: bool = False,
    ) -> KandinskyPriorPipelineOutput | tuple:
        """Image embeddings of `prompt` that start from `image`: a picture, pixel values (1, 3, S, S), or embeddings (N, E).

        strength: above 0 to 1, the share of the steps that are run. normalize: make the embedding noisy as the prior was
        trained to see it, (embedding - clip_mean) / clip_std; False, as the reference: the embedding as it is. There is one
        draw of noise, (N, E) or with a negative prompt (2 N, E). Returns (N, E) float32 twice, as the prior.
        """
        as_choice(output_type, ("np",), "output_type")
        sampling = self.sampling(num_inference_steps, num_images_per_prompt, guidance_scale, strength=strength)
        prompts = as_texts(prompt, "prompt")
        negatives = None if negative_prompt is None else as_texts(negative_prompt, "negative_prompt")
        if negatives is not None and len(negatives) != len(prompts):
            raise UserError(f"negative_prompt has {len(negatives)} texts and prompt has {len(prompts)}: give one for each")
        if not isinstance(normalize, bool):
            raise UserError(f"normalize is {normalize!r}: it must be True or False")
        source, rows = noise.source(generator), len(rows_of(sampling, prompts, negatives))
        with self.require(sampling, [*prompts, *(negatives or ())], rows, pictures=True):
            start = self._embeddings(image)
            if len(start) not in (1, len(prompts)):
                raise UserError(f"image is {len(start)} pictures and prompt has {len(prompts)} texts: give one, or one for each")
            if normalize:
                start = (start - self.bundle.constants["clip_mean"]) / self.bundle.constants["clip_std"]
            start = np.repeat(np.broadcast_to(start, (len(prompts), start.shape[1])), sampling.num_images_per_prompt, axis=0)
            start = np.concatenate([start] * (rows // len(start)))
            output = self.embed_prompts(sampling, prompts, negatives, source, start)
        return output if return_dict else output.to_tuple()

    def _first(self, sampling: Sampling, shape: tuple[int, ...], latents: Any, source, encoded: Any = None) -> np.ndarray:
        """The embeddings `latents`, as noisy as the schedule is where the run starts."""
        noisy = sampling.schedule.noised(as_latents(latents, shape), noise.draw(source, shape), sampling.start)
        return noisy.astype(np.float32)

    def _embeddings(self, image: Any) -> np.ndarray:
        """(N, E) of pictures, pixel values or embeddings, one or a list."""
        given = [item for each in image for item in self._each(each)] if isinstance(image, (list, tuple)) else self._each(image)
        if not given:
            raise UserError("image is an empty list: give at least one picture")
        return np.concatenate(given)

    def _each(self, item: Any) -> list[np.ndarray]:
        is_picture = isinstance(item, (str, os.PathLike, Image.Image))
        if not is_picture and np.ndim(item) in (1, 2):
            return [as_array(np.atleast_2d(np.asarray(item)), "image", self.embedding_dim)]
        pictures = [load_image(item)] if is_picture else [each[None] for each in as_list(item, "image")]
        return embed_pictures(self.models, [self._pixel_values(picture) for picture in pictures])
