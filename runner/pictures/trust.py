"""What a picture's recipe names, and whether it may be opened: a stranger may have written it.

It is opened without asking only if it lies on this machine and is what the recipe's sha256 says. All else is a doubt, for
the user to decide.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from ..bundle.checked_files import sha256_of
from ..bundle.manifest import FILE_NAME
from ..common.errors import UserError
from ..request import InputPicture, Item
from .fetch import is_url, shorten
from .images import load_image, pixels_sha256
from .provenance import Provenance, as_path, as_text

MOST_MANIFEST = 1 << 26  # bytes; that of the demo's bundle has 13 KB


class Named(NamedTuple):
    """What a recipe names. place: its path or address. doubt: why it should not be opened unseen; None if it may."""

    place: str | Path
    doubt: str | None = None


def is_remote(name: str) -> bool:
    """Whether opening `name` may ask another machine for it: an address, or a network path as Windows writes it."""
    return is_url(name) or "://" in name or name.startswith(("//", "\\\\"))


def relative_to_picture(path: str | os.PathLike, picture: Path) -> str:
    """`path` from the folder of `picture`: it holds when the working folder is another, or both are moved together."""
    return as_text(os.path.relpath(os.path.realpath(path), os.path.realpath(picture.parent)))


def bundle(provenance: Provenance, picture: Path) -> Named:
    """The bundle that `picture` was made with. UserError if it is not on this machine."""
    name = provenance.bundle
    if is_remote(name):
        return Named(as_path(name), f"the bundle {shorten(name)} may lie on another machine")
    found = [place for place in _places(name, provenance, picture) if _is_file(place / FILE_NAME, MOST_MANIFEST)]
    for place in found:
        if sha256_of(place / FILE_NAME) == provenance.bundle_sha256:
            return Named(place)
    if not found:
        raise UserError(f"{shorten(name)}, the bundle that the recipe in {picture} names, is not here: give the BUNDLE")
    return Named(found[0], f"{shorten(str(found[0]))} is another bundle than the picture was made with")


def used_picture(item: Item | InputPicture, provenance: Provenance, picture: Path, option: str) -> Named:
    """A picture that `picture` was made from. UserError, with the option to give another, if it is not on this machine, or
    changed."""
    name, instead = item.image, f"give it with {option}"
    if name is None:
        raise UserError(f"{picture} was made from a picture in memory: {instead}")
    if is_remote(name):
        return Named(name, f"the picture {shorten(name)} lies on another machine")
    found = [place for place in _places(name, provenance, picture) if _is_file(place)]
    if not found:
        raise UserError(f"{shorten(name)}, a picture that the recipe in {picture} names, is not here: {instead}")
    if item.sha256 is None:
        return Named(found[0], f"the recipe does not say what the picture {shorten(str(found[0]))} must be")
    for place in found:
        if pixels_sha256(load_image(place)) == item.sha256:
            return Named(place)
    raise UserError(f"{shorten(str(found[0]))} is not the picture that was used: {instead}")


def _places(name: str, provenance: Provenance, picture: Path) -> list[Path]:
    """Where a path out of the recipe of `picture` may lie: as it was given, or relative to the picture's folder."""
    beside = [other for other in (provenance.beside.get(name), name) if other is not None and not is_remote(other)]
    return [as_path(name), *(picture.parent / as_path(other) for other in beside)]


def _is_file(path: Path, most: int | None = None) -> bool:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a null character
        return False
    return stat.S_ISREG(found.st_mode) and (most is None or found.st_size <= most)
