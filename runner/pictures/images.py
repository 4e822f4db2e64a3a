"""Pictures that are read: from files, addresses and arrays; and grids of them."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..common.errors import UserError
from .fetch import fetch, is_url, shorten

MAX_PIXELS = 2**26  # 8192 x 8192, 200 MB as RGB
MAX_BYTES = 2**27  # 128 MiB: that many pixels, barely compressed
ONE_GRAY_LEVEL = 1 / 255
TIMEOUT = 30.0  # seconds for a picture from the net

# What is tried on a file, whatever its name ends in. Pillow knows more; those can run other programs (EPS, WMF) or are
# seldom pictures.
READ_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "MPO", "JPEG2000", "AVIF")


def load_image(image: str | os.PathLike | Image.Image, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES,
               timeout: float = TIMEOUT) -> Image.Image:
    """A picture as RGB, upright as its EXIF orientation says; as diffusers' `load_image`, but 16-bit gray is scaled.

    image: a path, an http(s) address or a PIL picture. An animation gives its first frame; transparency is dropped.
    max_pixels: width times height (above `PIL.Image.MAX_IMAGE_PIXELS` Pillow has a word too); max_bytes: of the file;
    timeout: seconds for a download in all.
    Raises UserError, naming the source, for what is not a whole picture within these limits.
    """
    if isinstance(image, Image.Image):
        return _to_rgb(image, "the picture", max_pixels)
    if not isinstance(image, (str, os.PathLike)) or isinstance(os.fspath(image), bytes):
        raise UserError(f"a picture must be a path, an http(s) address or a PIL picture, not {type(image).__name__}")
    name = shorten(os.fspath(image))
    if isinstance(image, str) and is_url(image):
        data = fetch(image, timeout=timeout, max_bytes=max_bytes)
    else:
        data = _read(Path(image), name, max_bytes)
    return _to_rgb(data, name, max_pixels)


def read_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in a file's bytes, as `load_image`. name: what an error calls it."""
    return _to_rgb(data, name, max_pixels)


def pixels_sha256(image: Image.Image) -> str:
    """The sha256 of a picture's size and RGB pixels, as hexadecimal digits."""
    return hashlib.sha256(f"{image.width}x{image.height}".encode() + image.tobytes()).hexdigest()


def to_8_bit(image: Image.Image) -> Image.Image:
    """A picture with 8 bits a channel: gray from 0 to 65535 becomes gray from 0 to 255, other modes stay.

    Pillow's own conversion to RGB, which diffusers and transformers use, makes all above 255 white. UserError for
    32-bit integers and floating point numbers, which have no white.
    """
    if image.mode != "F" and image.mode[0] != "I":
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise UserError(f"pixels of mode {image.mode} have no white: save the picture with 8 or 16 bits a channel")
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))


def to_picture(image: np.ndarray, number: str = "1 of 1") -> np.ndarray:
    """The picture (H, W, 3) in [0, 1] of what the MoVQ gives, (1, 3, H, W) in [-1, 1]. Warns of one that shows nothing, by
    its `number`; UserError if it is not finite."""
    if not np.isfinite(image).all():
        raise UserError("movq_decoder: the picture holds values that are not finite: check the bundle")
    half = np.float32(0.5)
    picture = np.clip(image[0] * half + half, 0, 1).transpose(1, 2, 0)
    if (np.ptp(picture, axis=(0, 1)) < ONE_GRAY_LEVEL).all():
        warnings.warn(f"picture {number} is flat, all of it one color: see with kandinsky-mindir verify whether the bundle is "
                      "right, then try another scheduler, steps or guidance scale", stacklevel=2)
    return picture


def to_pil(images: np.ndarray) -> list[Image.Image]:
    """Pictures (N, H, W, 3) with values in [0, 1] as PIL; rounds as diffusers' `numpy_to_pil`."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"pictures must have the shape (N, H, W, 3), not {images.shape}")
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # a NaN is neither
        raise UserError("pictures hold values that are not between 0 and 1, or not numbers")
    return [Image.fromarray(image) for image in (images * 255).round().astype(np.uint8)]


def make_image_grid(images: Sequence[Image.Image], rows: int, cols: int, resize: int | None = None) -> Image.Image:
    """Pictures side by side, row after row, in cells of the first one's size (or of `resize` x `resize` pixels)."""
    if rows < 1 or cols < 1 or len(images) != rows * cols:
        raise UserError(f"a grid of {rows} rows and {cols} columns needs {rows * cols} pictures, not {len(images)}")
    if resize is not None:
        images = [image.resize((resize, resize)) for image in images]
    width, height = images[0].size
    grid = Image.new("RGB", (cols * width, rows * height))
    for i, image in enumerate(images):
        grid.paste(image, (i % cols * width, i // cols * height))
    return grid


def _read(path: Path, name: str, max_bytes: int) -> bytes:
    try:
        if not path.is_file():  # nor a device or a pipe, which may never end
            reason = "it is not a file" if path.exists() else "it is not there"
            raise UserError(f"{name} cannot be read: {reason}; give a picture's path or its http(s) address")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise UserError(f"{name} cannot be read: it is larger than {max_bytes} bytes")
    return data


def _to_rgb(source: Image.Image | bytes, name: str, max_pixels: int) -> Image.Image:
    try:
        with _open(source) if isinstance(source, bytes) else nullcontext(source) as image:
            width, height = image.size
            if not 0 < width * height <= max_pixels:
                raise UserError(f"it has {width}x{height} pixels; the limit is {max_pixels} in all, and one at least")
            return to_8_bit(ImageOps.exif_transpose(image)).convert("RGB")
    except Image.UnidentifiedImageError:
        reason = f"it is not a picture in a known format ({', '.join(READ_FORMATS)})"
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        reason = shorten(str(error) or type(error).__name__)
    raise UserError(f"{name} cannot be used: {reason}")


def _open(data: bytes) -> Image.Image:
    Image.init()
    return Image.open(io.BytesIO(data), formats=[name for name in READ_FORMATS if name in Image.OPEN])
