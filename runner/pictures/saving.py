"""Picture files that are written: their formats and names, and what can be said of them before the work."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from ..common.errors import UserError
from ..common.whole_file import whole_file

UNSIGNED_32 = 2**32 - 1


@dataclass(frozen=True)
class Format:
    """A picture format as Pillow writes it.

    longest_side: in pixels. most_bytes: of a file. least_bytes_per_pixel: what a picture takes on the disk at the very
    least. Files of Pillow's that are compressed took 0.54 bytes a pixel or more for each of the shipped checkpoint's
    pictures: 0.1 is far below that, so that no picture is refused that would have fitted.
    """

    name: str
    longest_side: int
    most_bytes: int = 2**63 - 1
    least_bytes_per_pixel: float = 0.1
    options: dict[str, Any] = field(default_factory=dict)


PNG = Format("PNG", 2**31 - 1)  # PNG specification, 11.2.2 IHDR
JPEG = Format("JPEG", 65500, options={"quality": 95})  # JPEG_MAX_DIMENSION of libjpeg's jmorecfg.h
WEBP = Format("WEBP", 16383, options={"lossless": True})  # WEBP_MAX_DIMENSION of libwebp's encode.h
BMP = Format("BMP", 2**31 - 1, UNSIGNED_32, 3)
TIFF = Format("TIFF", 2**31 - 1, UNSIGNED_32, 3)
WRITE_FORMATS = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WEBP, ".bmp": BMP, ".tif": TIFF, ".tiff": TIFF}


def format_of(path: Path) -> Format:
    """The format that the ending of `path` names; UserError for an unknown one."""
    if path.suffix.lower() not in WRITE_FORMATS:
        raise UserError(f"{path} ends in no known picture format: use one of {', '.join(WRITE_FORMATS)}")
    return WRITE_FORMATS[path.suffix.lower()]


def numbered(path: Path, count: int) -> list[Path]:
    """The files of `count` pictures: `path` itself for one, else ``name-1.png``, with as many digits as the last takes."""
    if count == 1:
        return [path]
    digits = len(str(count))
    return [path.with_name(f"{path.stem}-{i + 1:0{digits}}{path.suffix}") for i in range(count)]


def check_outputs(paths: Sequence[Path], size: tuple[int, int], inputs: Iterable[Path] = ()) -> None:
    """UserError if pictures of `size` (height, width) could not be written to `paths`, all of one folder and format.

    inputs: pictures that are read, and are not to be overwritten.
    """
    form = format_of(paths[0])
    _check_size(paths[0], form, size)
    check_folder(paths[0].parent)
    real: dict[str, Path] = {}
    for path in paths:
        check_place(path)
        if (other := real.setdefault(os.path.realpath(path), path)) is not path:
            raise UserError(f"{other} and {path} are the same file: choose another --output")
    for source in inputs:
        if os.path.realpath(source) in real and os.path.exists(source):
            raise UserError(f"{source} is read to make the picture, and would be overwritten: choose another --output")
    need = form.least_bytes_per_pixel * size[0] * size[1] * len(paths)
    if need > (free := shutil.disk_usage(paths[0].parent).free):
        raise UserError(f"the pictures take {need / 1e6:,.1f} MB or more, and {paths[0].parent} has {free / 1e6:,.1f} MB left: "
                        "make room, or choose another --output")


def save_image(image: Image.Image, path: str | os.PathLike, *, text: Mapping[str, str] | None = None) -> None:
    """Write a picture, whole or not at all, in the format that the ending of `path` names.

    text: keys and values for the text chunks of a PNG. UserError for an unknown ending or what cannot be written.
    """
    save_bytes(encode(image, path, text=text), path)


def encode(image: Image.Image, path: str | os.PathLike, *, text: Mapping[str, str] | None = None) -> bytes:
    """The bytes of the file that `save_image` writes to `path`, for whoever writes it elsewhere."""
    path = Path(path)
    form = format_of(path)
    options = form.options
    _check_size(path, form, (image.height, image.width))
    if text:
        if form is not PNG:
            raise UserError(f"{path} cannot hold text: use a name that ends in .png")
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        for key, value in text.items():
            options["pnginfo"].add_itxt(key, value)
    encoded = io.BytesIO()
    try:
        image.save(encoded, form.name, **options)
    except (OSError, ValueError) as error:  # a mode that the format does not have
        raise UserError(f"{path} cannot be written: {error}") from None
    return encoded.getvalue()


def save_bytes(data: bytes, path: str | os.PathLike) -> None:
    """Write a file, whole or not at all. UserError if it cannot be written."""
    try:
        with whole_file(Path(path)) as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _check_size(path: Path, form: Format, size: tuple[int, int]) -> None:
    height, width = size
    if max(size) > form.longest_side:
        raise UserError(f"{path}: a picture of {height}x{width} pixels is too large for {form.name}, which has at most "
                        f"{form.longest_side} on a side: choose another format, or a smaller picture or grid")
    if form.least_bytes_per_pixel * height * width > form.most_bytes:
        raise UserError(f"{path}: a picture of {height}x{width} pixels is too large for {form.name}, which has at most "
                        f"{form.most_bytes} bytes: choose another format, or a smaller picture or grid")


def check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist: make it, or choose another --output")
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder {folder} is not writable: choose another --output")
    try:
        with tempfile.TemporaryFile(dir=folder):  # without a name, where the file system can do that
            pass
    except OSError as error:
        raise UserError(f"{folder} takes no files ({error.strerror}): choose another --output") from None


def check_place(path: Path) -> None:
    """UserError if there is something at `path` that a picture cannot replace, or if its name is too long."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # or a link to a file that is not there
        if path.is_symlink():
            check_folder(Path(os.path.realpath(path)).parent)
        return
    except (OSError, ValueError) as error:  # the name is too long, above all; ValueError: a null character
        raise UserError(f"{path} cannot be written ({getattr(error, 'strerror', error)}): choose another --output") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder: choose another --output")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a device or a pipe: choose another --output")
    if not os.access(path, os.W_OK):
        raise UserError(f"{path} is read-only: choose another --output")
