"""What a request draws from, opened: its texts, and the pictures that it names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..pictures.images import load_image, pixels_sha256
from ..request import InputPicture, Item, Request
from .conditions import as_list


def with_pictures(request: Request, pictures: Sequence[Image.Image] | None) -> tuple[Request, list[Any]]:
    """(the request, which names its pictures by their pixels, too; the texts and pictures that it draws from).

    pictures: those of the items that are no texts, in order; None to open their paths. UserError for a picture that
    cannot be opened, or that is not the one whose sha256 the request holds.
    """
    if not request.items:
        return request, list(request.prompt)
    wanted = [item for item in request.items if item.text is None]
    if pictures is not None and len(pictures) != len(wanted):
        raise UserError(f"pictures has {len(pictures)} pictures and the request mixes {len(wanted)}: give as many")
    given = iter([None] * len(wanted) if pictures is None else pictures)
    opened = [item.text if item.text is not None else open_picture(item, next(given)) for item in request.items]
    items = tuple(
        item if isinstance(subject, str) else msgspec.structs.replace(item, sha256=pixels_sha256(subject))
        for item, subject in zip(request.items, opened)
    )
    return request.replace(items=items), opened


def with_brought(request: Request, given: Mapping[str, Any]) -> tuple[Request, dict[str, list[Any]]]:
    """(the request, which names the pictures that it brings by their pixels, too; these pictures, by their field's name).

    given: pictures or arrays by the field's name, one or a list; what is not there is opened from its path.
    """
    changes: dict[str, Any] = {}
    opened: dict[str, list[Any]] = {}
    for name in request.brings:
        wanted = getattr(request, name)
        pictures = [None] * len(wanted) if given.get(name) is None else as_list(given[name], name)
        if len(pictures) != len(wanted):
            raise UserError(f"{name} is {len(pictures)} pictures and the request names {len(wanted)}: give as many")
        opened[name] = [found if isinstance(found, np.ndarray) else open_picture(item, found, name)
                        for item, found in zip(wanted, pictures)]
        changes[name] = tuple(
            msgspec.structs.replace(item, sha256=sha256_of(found)) for item, found in zip(wanted, opened[name])
        )
    return request.replace(**changes) if changes else request, opened


def named(value: Any, name: str) -> tuple[InputPicture, ...]:
    """Pictures in memory, or at their paths, as a request names them."""
    return tuple(
        InputPicture(image=os.fspath(found)) if isinstance(found, (str, os.PathLike)) else InputPicture(sha256=sha256_of(found))
        for found in as_list(value, name)
    )


def sha256_of(picture: Image.Image | np.ndarray) -> str:
    """Of a picture's pixels as RGB, or of an array's shape, type and bytes."""
    if isinstance(picture, Image.Image):
        return pixels_sha256(load_image(picture))
    return hashlib.sha256(f"{picture.shape} {picture.dtype.str}".encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def open_picture(item: Item | InputPicture, picture: Image.Image | None = None, name: str = "an item") -> Image.Image:
    """The picture of an item as RGB: `picture`, or the one at its path. name: what an error calls it."""
    source = item.image if picture is None else picture
    if source is None:
        raise UserError(f"{name} is a picture without a path (sha256 {str(item.sha256)[:10]}): give the picture itself")
    found = load_image(source)
    if item.sha256 is not None and item.sha256 != pixels_sha256(found):
        raise UserError(f"{item.image or 'a picture'} is not the picture that was used: give what to use")
    return found
