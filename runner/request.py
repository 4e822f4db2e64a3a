"""A request for pictures: one frozen value that the command line, Python's keywords and a picture's metadata share.

A `Request` holds only what JSON can hold. Its fields have the names of the pipelines' keywords. It is checked when it is
made, whoever makes it; every error is one line that names the field. What else Python can give to a call (generators,
latents, callbacks, pictures in memory) stays beside it.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from . import schedulers
from .common.errors import UserError
from .common.options import (
    as_choice,
    as_count,
    as_guidance_scale,
    as_interval,
    as_pixels,
    as_share,
    as_strength,
    as_text,
    as_texts,
)
from .diffusion import noise
from .tasks import DECODERS, PICTURES, STRENGTH, TASKS, InputPicture, Item, as_items, set_field

SEED_BITS = 32  # of a seed that nobody gave: what every kind of generator takes
MOST_IMAGES = 10_000  # of a prompt in one call: a slip of the keyboard should not fill the memory


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What to draw. None leaves a field to the bundle's defaults (`complete`).

    task: a key of TASKS.
    prompt: texts; one text is a list of one. negative_prompt: as many, or one for a mix.
    items: what "interpolate" mixes. negative_prior_prompt: one text for the whole mix.
    image: the picture that all start from, or one for each prompt. strength: above 0 to 1, how much of it is made anew.
    mask_image: what of image to repaint (white); paste: put the other pixels back as they were. hint: the depth, near bright.
    scheduler: the decoder's sampler: a short name, a class name of diffusers, or the options of one with `_class_name`.
    prior_scheduler: the prior's, likewise.
    num_inference_steps, guidance_scale, guidance_rescale, guidance_interval: of the decoder (see `Guidance`).
    cache_interval: of so many calls of the UNet one is whole (see `DeepFeatures`); 1: all.
    height, width: pixels.
    seed, rng: where the noise comes from: a key of `noise.GENERATORS` and its seed.
    row, rows: which one of the pictures to make that are drawn together from the seed, counted from 0; row None for all.
    """

    task: str
    prompt: str | tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    negative_prompt: str | tuple[str, ...] | None = None
    negative_prior_prompt: str | None = None
    image: tuple[InputPicture, ...] = ()
    mask_image: tuple[InputPicture, ...] = ()
    hint: tuple[InputPicture, ...] = ()
    strength: float | None = None
    paste: bool = False
    num_images_per_prompt: int = 1
    scheduler: str | dict[str, Any] | None = None
    prior_scheduler: str | dict[str, Any] | None = None
    num_inference_steps: int | None = None
    prior_num_inference_steps: int | None = None
    guidance_scale: float | None = None
    prior_guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    cache_interval: int = 1
    height: int | None = None
    width: int | None = None
    seed: int | None = None
    rng: str = "numpy"
    row: int | None = None
    rows: int = 1

    def __post_init__(self):
        as_choice(self.task, tuple(TASKS), "task")
        self._check_subject()
        self._check_pictures()
        set_field(self, "num_images_per_prompt", as_count(self.num_images_per_prompt, "num_images_per_prompt", MOST_IMAGES))
        for name, check in CHECKS.items():
            if getattr(self, name) is not None:
                set_field(self, name, check(getattr(self, name), name))
        if self.seed is not None:
            noise.from_seed(self.seed, self.rng)
            set_field(self, "seed", int(self.seed))
        if self.row is not None:
            self._check_row()
        elif self.rows != 1:
            raise UserError(f"rows is {self.rows!r} without a row: say which of the pictures to make")

    def _check_subject(self) -> None:
        needs, takes, _ = TASKS[self.task]
        for name in ("prompt", "items", "negative_prompt", "negative_prior_prompt"):
            if getattr(self, name) not in ((), None) and name != needs and name not in takes:
                raise UserError(f"the task {self.task} takes no {name}")
        if needs == "prompt":
            set_field(self, "prompt", tuple(as_texts(self.prompt, "prompt")))
        else:
            set_field(self, "items", as_items(self.items))
        if self.negative_prompt is not None:
            negatives = tuple(as_texts(self.negative_prompt, "negative_prompt"))
            if needs == "prompt" and len(negatives) != len(self.prompt):
                raise UserError(f"negative_prompt has {len(negatives)} texts and prompt has {len(self.prompt)}: "
                                "give one for each")
            if needs != "prompt" and len(negatives) != 1:
                raise UserError(f"negative_prompt is {list(negatives)}: it must be one text, for the whole mix")
            set_field(self, "negative_prompt", negatives)
        if self.negative_prior_prompt is not None:
            set_field(self, "negative_prior_prompt", as_text(self.negative_prior_prompt, "negative_prior_prompt"))

    def _check_pictures(self) -> None:
        for name in PICTURES:
            pictures = getattr(self, name)
            if not isinstance(pictures, (list, tuple)) or not all(isinstance(picture, InputPicture) for picture in pictures):
                raise UserError(f"{name} must be a list of pictures, each with an image or a sha256")
            if len(pictures) not in (0, 1, max(len(self.prompt), 1)):
                raise UserError(f"{name} has {len(pictures)} pictures and prompt has {len(self.prompt)}: give one or as many")
            set_field(self, name, tuple(pictures))
        if self.brings not in DECODERS:
            known = "; ".join(" and ".join(names) for names in DECODERS if names)
            raise UserError(f"a request cannot bring {' and '.join(self.brings)} alone: known are {known}")
        if self.strength is not None and not self.starts:
            raise UserError("strength is of a picture to start from: give an image, too" if "image" not in self.brings else
                            "strength has no meaning with a mask: all that it shows is made anew")
        if not isinstance(self.paste, bool):
            raise UserError(f"paste is {self.paste!r}: it must be True or False")
        if self.paste and "mask_image" not in self.brings:
            raise UserError("paste is of a picture and a mask: give them, too")

    def _check_row(self) -> None:
        set_field(self, "rows", as_count(self.rows, "rows"))
        if isinstance(self.row, bool) or self.row not in range(self.rows):
            raise UserError(f"row is {self.row!r} of {self.rows} rows: it must be from 0 to {self.rows - 1}")
        if self.count != 1:
            raise UserError(f"row is {self.row}, which is one picture, and the request is for {self.count}")
        set_field(self, "row", operator.index(self.row))  # type: ignore[arg-type]  # it is in a range

    @property
    def brings(self) -> tuple[str, ...]:
        """The names of the pictures that it brings: a key of DECODERS."""
        return tuple(name for name in PICTURES if getattr(self, name))

    @property
    def starts(self) -> bool:
        """Whether the diffusion starts from a picture."""
        return "image" in self.brings and "mask_image" not in self.brings

    @property
    def count(self) -> int:
        """How many pictures it makes."""
        return max(len(self.prompt), 1) * self.num_images_per_prompt

    def complete(self, defaults: Mapping[str, Any]) -> Request:
        """The same with every field that is None and that `defaults` names filled in, and with a seed."""
        changes = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if self.strength is None and self.starts:
            changes["strength"] = STRENGTH
        if self.seed is None:
            changes.setdefault("seed", secrets.randbits(SEED_BITS))
        return msgspec.structs.replace(self, **changes)

    def replace(self, **changes: Any) -> Request:
        """The same with other values. One picture of several stays that picture while it is one; else all are made."""
        known = set(type(self).__struct_fields__)
        if not known.issuperset(changes):
            raise UserError(f"a request has no {', '.join(sorted(set(changes) - known))}; it has {', '.join(sorted(known))}")
        whole = msgspec.structs.replace(self, **{"row": None, "rows": 1, **changes})
        keeps_row = self.row is not None and whole.count == 1 and not changes.keys() & {"row", "rows"}
        return msgspec.structs.replace(whole, row=self.row, rows=self.rows) if keeps_row else whole

    def alone(self, row: int) -> Request:
        """The request that makes picture number `row` of this one again, alone, with the noise that it has here."""
        if self.count == 1:
            return self
        number = row // self.num_images_per_prompt  # of the prompt
        changes: dict[str, Any] = {"num_images_per_prompt": 1, "row": row, "rows": self.count}
        if self.prompt:
            changes["prompt"] = (self.prompt[number],)
            changes["negative_prompt"] = self.negative_prompt and (self.negative_prompt[number],)
        for name in self.brings:
            changes[name] = getattr(self, name)[number:][:1] or getattr(self, name)
        return msgspec.structs.replace(self, **changes)

    def noise_source(self) -> noise.NoiseSource:
        """Where its noise comes from: the same numbers each time. UserError without a seed."""
        if self.seed is None:
            raise UserError("the request has no seed: complete it first")
        source = noise.from_seed(self.seed, self.rng)
        return source if self.row is None else noise.OneOfBatch(source, self.row, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it: fields that are at their defaults are left out."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_dict(cls, data: Any, where: str = "the request") -> Request:
        """The request in `data`, as `to_dict` makes it. UserError names `where` and the field."""
        try:
            return msgspec.convert(data, cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UserError(f"{where}: {_in_words(error)}") from None

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "the request") -> Request:
        """The request in `text`. UserError names `where` and the field. NaN and Infinity are no JSON."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise UserError(f"{where}: {_in_words(error)}") from None


def defaults_of(manifest: Any, kind: str = "decoder") -> dict[str, Any]:
    """What a bundle (its `bundle.manifest.Manifest`) fills in where a request is silent. kind: of its decoder."""
    prior, decoder = manifest.defaults["prior"], manifest.defaults[kind]
    sampler = schedulers.create_by_name(decoder["scheduler"], manifest.schedulers[kind])
    return {
        "scheduler": schedulers.describe(sampler),
        "num_inference_steps": decoder["num_inference_steps"],
        "guidance_scale": decoder["guidance_scale"],
        "prior_num_inference_steps": prior["num_inference_steps"],
        "prior_guidance_scale": prior["guidance_scale"],
        "height": decoder["height"],
        "width": decoder["width"],
    }


def _as_scheduler(value: Any, name: str) -> str | dict[str, Any]:
    """A name that is known, or the options of a scheduler as JSON can hold them."""
    if isinstance(value, str):
        return schedulers.as_name(value)
    if isinstance(value, schedulers.Scheduler):
        return schedulers.describe(value)
    if not isinstance(value, Mapping):
        raise UserError(f"{name} is {value!r}: it must be a name, or the options of a scheduler")
    return schedulers.describe(schedulers.create(value))


# How the fields that may be left open are checked; each returns the value as Python's own type.
CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "scheduler": _as_scheduler,
    "prior_scheduler": _as_scheduler,
    "num_inference_steps": as_count,
    "prior_num_inference_steps": as_count,
    "guidance_scale": as_guidance_scale,
    "prior_guidance_scale": as_guidance_scale,
    "strength": as_strength,
    "guidance_rescale": as_share,
    "guidance_interval": as_interval,
    "cache_interval": as_count,
    "height": as_pixels,
    "width": as_pixels,
    "rng": lambda value, name: as_choice(value, tuple(noise.GENERATORS), name),
}


def _in_words(error: Exception) -> str:
    """What is wrong with the JSON, with the field first: "num_inference_steps: expected `int`, got `str`"."""
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    message, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if isinstance(error.__cause__, UserError):
        message = str(error.__cause__)
    else:
        message = message.replace("Expected", "expected").replace("Object", "the object")
    return f"{field}: {message}" if field else message
