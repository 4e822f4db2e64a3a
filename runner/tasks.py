"""What a request draws from: the tasks, and the texts and pictures that they take."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from .common.errors import UserError
from .common.options import as_number, as_text


class Task(NamedTuple):
    """What a task draws from. needs: the field that it cannot do without. takes: fields that not every task has.

    embed: ".MODULE:FUNCTION" in pipelines/, which makes the image embeddings of a request (pipelines/combined.py calls it).
    """

    needs: str
    takes: tuple[str, ...]
    embed: str


# A new task is a row here and the function that it names.
TASKS = {
    "text2image": Task("prompt", ("negative_prompt",), ".prior:embed_text_request"),
    "interpolate": Task("items", ("negative_prompt", "negative_prior_prompt"), ".prior:embed_mix_request"),
}


# The decoder's pipeline, ".MODULE:CLASS" in pipelines/, by the names of the pictures that a request brings.
DECODERS = {
    (): ".decoder:KandinskyV22Pipeline",
    ("image",): ".img2img:KandinskyV22Img2ImgPipeline",
    ("image", "mask_image"): ".inpaint:KandinskyV22InpaintPipeline",
    ("hint",): ".controlnet:KandinskyV22ControlnetPipeline",
    ("image", "hint"): ".controlnet:KandinskyV22ControlnetImg2ImgPipeline",
}
PICTURES = tuple(dict.fromkeys(name for names in DECODERS for name in names))
STRENGTH = 0.3  # as in the reference


class InputPicture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A picture that a request brings. image: a path or an address. sha256: of its pixels, hexadecimal, as of an `Item`."""

    image: str | None = None
    sha256: str | None = None

    def __post_init__(self):
        _check_picture(self)
        if self.image is None and self.sha256 is None:
            raise UserError("a picture must have an image or a sha256")


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text or a picture of a mix, and its weight.

    image: a path or an address. sha256: of the picture's pixels (`pictures.images.pixels_sha256`), hexadecimal. A picture
    in memory has no path, and is known by its sha256 alone.
    """

    weight: float
    text: str | None = None
    image: str | None = None
    sha256: str | None = None

    def __post_init__(self):
        set_field(self, "weight", as_number(self.weight, "weight"))
        if self.text is not None:
            set_field(self, "text", as_text(self.text, "text"))
        _check_picture(self)
        if (self.text is None) == (self.image is None and self.sha256 is None):
            raise UserError("an item must have either a text or an image")
        if self.text is not None and self.sha256 is not None:
            raise UserError("an item with a text has no sha256: that is of a picture")


def as_items(items: Any) -> tuple[Item, ...]:
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, Item) for item in items):
        raise UserError("items must be a list of texts and pictures with their weights")
    if not items:
        raise UserError("items is empty: give at least one text or picture")
    if not any(item.weight for item in items):
        raise UserError("weights are all zero: at least one must not be")
    return tuple(items)


def _check_picture(struct: Item | InputPicture) -> None:
    for name in ("image", "sha256"):
        if getattr(struct, name) is not None:
            set_field(struct, name, as_text(getattr(struct, name), name))
    if struct.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", struct.sha256):
        raise UserError(f"sha256 is {struct.sha256[:80]!r}: it must be 64 hexadecimal digits")


def set_field(struct: msgspec.Struct, name: str, value: Any) -> None:
    """Put a field of a frozen struct in order, while it is made."""
    msgspec.structs.force_setattr(struct, name, value)
