"""A prior that remembers its embeddings: other weights of a mix, or other options of the decoder, run the decoder only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from ...loading.models import Models
from ...pipelines.outputs import KandinskyPriorPipelineOutput, MixEmbeddings
from ...pipelines.prior import KandinskyV22PriorPipeline
from ...request import Request

MOST = 256  # embeddings of a request take some tens of kilobytes
# What of a request its embeddings follow from. The weights of a mix are not among it.
FIELDS = ("task", "prompt", "negative_prompt", "negative_prior_prompt", "prior_scheduler", "prior_num_inference_steps",
          "prior_guidance_scale", "num_images_per_prompt", "seed", "rng", "row", "rows")


class RememberingPrior(KandinskyV22PriorPipeline):
    """As the prior, for complete requests, whose `key` is set before each. One thread uses it.

    The noise that follows is the same: where the embeddings are known, what they drew is drawn again and thrown away.
    """

    key: bytes | None = None

    def __init__(self, models: Models):
        super().__init__(models)
        self._known: OrderedDict[bytes, tuple[Any, list[tuple[int, ...]]]] = OrderedDict()
        self.hits = 0

    def embed_prompts(self, sampling, prompts, negatives, source, latents=None) -> KandinskyPriorPipelineOutput:
        return self._remember(lambda noise: super(RememberingPrior, self).embed_prompts(
            sampling, prompts, negatives, noise, latents), source)

    def embed_items(self, sampling, items, negative, negative_prior, source, latents=None) -> MixEmbeddings:
        return self._remember(lambda noise: super(RememberingPrior, self).embed_items(
            sampling, items, negative, negative_prior, noise, latents), source)

    def _remember(self, embed: Callable[[Any], Any], source: Any) -> Any:
        if self.key is None:
            return embed(source)
        if self.key in self._known:
            self._known.move_to_end(self.key)
            self.hits += 1
            found, drawn = self._known[self.key]
            for shape in drawn:
                source.standard_normal(shape)
            return found
        recorder = _Recorder(source)
        found = embed(recorder)
        self._known[self.key] = found, recorder.drawn
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return found


class _Recorder:
    """A noise source that remembers the shapes of what it was asked for."""

    def __init__(self, source: Any):
        self._source, self.drawn = source, []  # type: ignore[var-annotated]

    def standard_normal(self, size) -> np.ndarray:
        self.drawn.append(tuple(size))
        return self._source.standard_normal(size)


def key_of(request: Request) -> bytes:
    """Equal for complete requests whose embeddings are equal. Pictures are known by their pixels' sha256."""
    subject = [(item.text, item.sha256) for item in request.items]
    return msgspec.json.encode([subject, *(getattr(request, name) for name in FIELDS)])
