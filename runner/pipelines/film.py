"""Films: pictures on a way through keys, which are texts or pictures. The prior runs once for each distinct text.

A frame at a key with still noise is the picture that the key's text gives alone with the same seed, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..common.kept_exceptions import lets_go
from ..common.options import as_choice, as_count, as_number
from ..common.progress import ProgressBar
from ..diffusion import noise
from ..diffusion.ways import EASINGS, WAYS, between, circle, eased, place
from ..inputs.items import with_pictures
from ..request import Item, Request
from .base import Sampling
from .combined import KandinskyV22CombinedPipeline
from .decoder import Decoding, KandinskyV22Pipeline
from .encoders import embed_pictures
from .prior import KandinskyV22PriorPipeline, Run

MOST_FRAMES = 100_000
STILL, SLERP, CIRCLE = "still", "slerp", "circle"
NOISES = (STILL, SLERP, CIRCLE)
TASK = "interpolate"  # a request with items: a film's keys are those, and their weights are not read


class Film(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What to show. JSON can hold it.

    request: its items are the keys; all else is as for one picture. frames: how many. embeds: the way between the keys'
    image embeddings: "slerp", or "lerp". noise: "still", the same in each frame; "slerp", each key has noise of its own;
    "circle", one even round through the whole film. easing: speed between two keys, a key of EASINGS. hold: share of the
    time for which the film stands at keys. loop: whether the way leads back to the first key.
    """

    request: Request
    frames: int = 48
    embeds: str = "slerp"
    noise: str = STILL
    easing: str = "linear"
    hold: float = 0.0
    loop: bool = False

    def __post_init__(self):
        checked = {
            "frames": as_count(self.frames, "frames", MOST_FRAMES),
            "embeds": as_choice(self.embeds, tuple(WAYS), "embeds"),
            "noise": as_choice(self.noise, NOISES, "noise"),
            "easing": as_choice(self.easing, tuple(EASINGS), "easing"),
            "hold": as_number(self.hold, "hold"),
        }
        for name, value in checked.items():
            msgspec.structs.force_setattr(self, name, value)
        if not 0 <= self.hold < 1:
            raise UserError(f"hold is {self.hold:g}: it must be a share of the time, from 0 to below 1")
        request, keys = self.request, len(self.request.items)
        if request.task != TASK or request.num_images_per_prompt != 1 or request.row is not None:
            raise UserError("a film's request must be one of items, for one picture")
        if request.brings:
            raise UserError(f"a film's request brings no {' and no '.join(request.brings)}: its keys are its items")
        if request.negative_prior_prompt is not None:
            raise UserError("a film takes no negative_prior_prompt: negative_prompt is for both halves")
        if self.frames < max(keys, 2):
            raise UserError(f"{self.frames} frames do not show {keys} keys: a film has as many frames as keys, and two at "
                            "least")
        if keys == 1 and self.noise != CIRCLE:
            raise UserError("one key gives a film whose frames are all the same: give another key, or noise that goes in a "
                            "circle")

    @classmethod
    def of(cls, keys: Sequence[str | Item], **fields: Any) -> Film:
        """A film of texts, and of pictures as Items. fields: of the film and of its request, by name."""
        own = {name: fields.pop(name) for name in cls.__struct_fields__ if name in fields}
        items = tuple(Item(1.0, text=key) if isinstance(key, str) else key for key in keys)
        return cls(request=Request(task=TASK, items=items, **fields), **own)


class Frame(NamedTuple):
    """number: from 0. image: PIL."""

    number: int
    image: Image.Image


@lets_go
def film_frames(
    pipeline: KandinskyV22CombinedPipeline,
    film: Film,
    *,
    numbers: Sequence[int] | None = None,
    pictures: Sequence[Image.Image] | None = None,
) -> Iterator[Frame]:
    """The frames of a film, each as soon as it is finished, the same whichever of them are asked for.

    numbers: which, in rising order; None for all. pictures: those of the items that are no texts, in order, instead of the
    paths in the items. UserError for all that can be refused, before the first frame is asked for.
    """
    request, items = with_pictures(pipeline.complete(film.request), pictures)
    film = msgspec.structs.replace(film, request=request)
    wanted = list(range(film.frames)) if numbers is None else [int(number) for number in numbers]
    if any(number not in range(film.frames) for number in wanted) or wanted != sorted(set(wanted)):
        raise UserError(f"numbers must rise, from 0 to {film.frames - 1} at most")
    decoder = KandinskyV22Pipeline.from_pipe(pipeline)
    sampling, decoding = _check(pipeline.prior_pipe, decoder, request, max(len(wanted), 1))
    prepared = pipeline.prior_pipe.as_items(items)
    return _frames(pipeline.prior_pipe, decoder, film, prepared, sampling, decoding, wanted)


def _check(
    prior: KandinskyV22PriorPipeline, decoder: KandinskyV22Pipeline, request: Request, frames: int
) -> tuple[Sampling, tuple[Decoding, Any]]:
    """What the film runs, and what holds its memory. frames: how many are made."""
    sampling = prior.sampling(
        request.prior_num_inference_steps, 1, request.prior_guidance_scale,
        scheduler=None if request.prior_scheduler is None else prior.as_scheduler(request.prior_scheduler),
    )  # fmt: skip
    texts = [item.text for item in request.items if item.text is not None] + list(request.negative_prompt or ())
    reservation = prior.require(sampling, texts, len(request.items) + 1, any(item.text is None for item in request.items))
    decoding = decoder.check(
        height=request.height, width=request.width, num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale, guidance_rescale=request.guidance_rescale,
        guidance_interval=request.guidance_interval, cache_interval=request.cache_interval,
        scheduler=None if request.scheduler is None else decoder.as_scheduler(request.scheduler),
        prompts=frames, holds=False,
    )  # fmt: skip
    return sampling, (decoding, reservation)


def _frames(prior: KandinskyV22PriorPipeline, decoder: KandinskyV22Pipeline, film: Film, items: Sequence, sampling: Sampling,
            checked: tuple[Decoding, Any], wanted: Sequence[int]) -> Iterator[Frame]:  # fmt: skip
    decoding, _reservation = checked  # held as long as this runs
    if not wanted:
        return
    embeds, negatives, source = _embed_keys(prior, sampling, items, film.request)
    shape = decoder.bundle.manifest.find("unet", 1, decoding.size).input("sample").shape[1:]
    draws = [noise.draw(source, (1, *shape)) for _ in range({STILL: 1, CIRCLE: 2, SLERP: len(embeds)}[film.noise])]

    def state(number: int) -> tuple[np.ndarray, np.ndarray]:
        """The image embedding and the latents of a frame, (1, ...) each."""
        key, share = place(number, film.frames, len(embeds), film.loop)
        share = eased(share, film.easing, film.hold)
        if film.noise == CIRCLE:
            latents = circle(draws[0], draws[1], number / film.frames)
        else:
            latents = between(draws, key, share, SLERP) if film.noise == SLERP else draws[0]
        return between(embeds, key, share, film.embeds), latents

    at_once = decoder.rows_at_once(decoding, len(wanted), draws=False)
    with prior.progress.bar(sum(1 for _ in _distinct(state, wanted)) * decoding.sampling.run, "film") as bar:
        decoder.progress = _OneBar(bar)
        for group in _groups(_distinct(state, wanted), at_once):
            states = [state(numbers[0]) for numbers in group]
            rows = _EachRow(copy.deepcopy(source))
            embeds_of, latents_of = (np.concatenate(side) for side in zip(*states))
            pictures = decoder.make(decoding, embeds_of, negatives, rows, latents_of)
            for numbers, picture in zip(group, pictures):
                for number in numbers:
                    yield Frame(number, picture)


def _embed_keys(prior: KandinskyV22PriorPipeline, sampling: Sampling, items: Sequence, request: Request):
    """(image embeddings (1, E) of the keys, the negative one (1, E), the noise source as a key's text leaves it).

    Each text draws from the request's seed anew, as it does in a request of its own.
    """
    negative = request.negative_prompt[0] if request.negative_prompt else None
    rows = 1 if negative is None else 2  # that a text is embedded in, with its negative one
    unconditional = "" if negative is None else negative
    texts = list(dict.fromkeys(item for item in items if isinstance(item, str)))
    named = [(text, 0) for text in texts] + ([] if negative is None else [(negative, 1)])
    sources = [request.noise_source() for _ in named] or [request.noise_source()]
    runs = [
        Run([(unconditional, text) if sampling.guidance.on else (text,)], noise.OneOfBatch(source, row, rows))
        for (text, row), source in zip(named, sources)
    ]
    found = prior.embed_runs(sampling, runs)
    by_text = dict(zip(texts, found))
    pictures = iter(embed_pictures(prior.models, [item for item in items if not isinstance(item, str)]))
    embeds = [by_text[item] if isinstance(item, str) else next(pictures).reshape(1, -1) for item in items]
    return embeds, prior.zero_image_embeds(1) if negative is None else found[-1], sources[0]


def _distinct(state: Callable[[int], tuple[np.ndarray, np.ndarray]], wanted: Sequence[int]) -> Iterator[list[int]]:
    """`wanted` in runs of frames that are the same picture."""
    same: list[int] = []
    before = None
    for number in wanted:
        now = tuple(array.tobytes() for array in state(number))
        if same and now != before:
            yield same
            same = []
        same.append(number)
        before = now
    yield same


def _groups(runs: Iterator[list[int]], size: int) -> Iterator[list[list[int]]]:
    group: list[list[int]] = []
    for run in runs:
        group.append(run)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


class _EachRow:
    """The noise of one picture, for each row of a batch."""

    def __init__(self, source: noise.NoiseSource):
        self._source = source

    def standard_normal(self, size) -> np.ndarray:
        return np.repeat(noise.draw(self._source, (1, *size[1:])), size[0], axis=0)


class _OneBar(ProgressBar):
    """The film's bar, in place of one for each group of frames."""

    def __init__(self, bar: Any):
        super().__init__()
        self._bar = bar

    @contextmanager
    def bar(self, total: int, name: str) -> Iterator[Any]:
        yield self._bar
