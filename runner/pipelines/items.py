"""What a request draws from, opened: its texts, and the pictures that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from PIL import Image

from ..common.errors import UserError
from ..pictures.images import load_image, pixels_sha256
from ..request import Item, Request


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


def open_picture(item: Item, picture: Image.Image | None = None) -> Image.Image:
    """The picture of an item as RGB: `picture`, or the one at its path."""
    source = item.image if picture is None else picture
    if source is None:
        raise UserError(f"an item is a picture without a path (sha256 {str(item.sha256)[:10]}): give the picture itself")
    found = load_image(source)
    if item.sha256 is not None and item.sha256 != pixels_sha256(found):
        raise UserError(f"{item.image or 'a picture'} is not the picture that was mixed: give what to mix")
    return found
