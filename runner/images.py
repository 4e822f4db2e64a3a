"""Pictures in and out: files, addresses, arrays, grids."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from .errors import UserError
from .fetch import fetch, is_url, shorten

MAX_PIXELS = 2**26  # 8192 x 8192, 200 MB as RGB
MAX_BYTES = 2**27  # 128 MiB: that many pixels, barely compressed
TIMEOUT = 30.0  # seconds for a picture from the net

# What is tried on a file, whatever its name ends in. Pillow knows more; those can run other programs (EPS, WMF) or are
# seldom pictures.
READ_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "MPO", "JPEG2000", "AVIF")
WRITE_FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}


def load_image(image: str | os.PathLike | Image.Image, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES,
               timeout: float = TIMEOUT) -> Image.Image:
    """A picture as RGB, upright as its EXIF orientation says; as diffusers' `load_image`, but 16-bit gray is scaled.

    image: a path, an http(s) address or a PIL picture. An animation gives its first frame; transparency is dropped.
    max_pixels: width times height; max_bytes: of the file; timeout: seconds for a download in all.
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
    Image.init()
    try:
        with Image.open(io.BytesIO(data), formats=[format for format in READ_FORMATS if format in Image.OPEN]) as opened:
            return _to_rgb(opened, name, max_pixels)
    except Image.UnidentifiedImageError:
        raise UserError(f"{name} is not a picture in a known format ({', '.join(READ_FORMATS)})") from None
    except Image.DecompressionBombError:
        raise _too_large(name, max_pixels) from None


def to_pil(images: np.ndarray) -> list[Image.Image]:
    """Pictures (N, H, W, 3) with values in [0, 1] as PIL; rounds as diffusers' `numpy_to_pil`."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"pictures must have the shape (N, H, W, 3), not {images.shape}")
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # a NaN is neither
        raise UserError("pictures hold values that are not between 0 and 1, or not numbers")
    return [Image.fromarray(image) for image in (images * 255).round().astype(np.uint8)]


def make_image_grid(images: Sequence[Image.Image], rows: int, cols: int, resize: int | None = None) -> Image.Image:
    """Pictures side by side, row after row, in cells of the first one's size (or of `resize` x `resize` pixels)."""
    if len(images) != rows * cols or not images:
        raise UserError(f"a grid of {rows} rows and {cols} columns needs {rows * cols} pictures, not {len(images)}")
    if resize is not None:
        images = [image.resize((resize, resize)) for image in images]
    width, height = images[0].size
    grid = Image.new("RGB", (cols * width, rows * height))
    for i, image in enumerate(images):
        grid.paste(image, (i % cols * width, i // cols * height))
    return grid


def save_image(image: Image.Image, path: str | os.PathLike, *, text: Mapping[str, str] | None = None) -> None:
    """Write a picture, whole or not at all, in the format that the ending of `path` names.

    text: keys and values for the text chunks of a PNG. UserError for an unknown ending or what cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITE_FORMATS:
        raise UserError(f"{path} ends in no known picture format: use one of {', '.join(WRITE_FORMATS)}")
    format, options = WRITE_FORMATS[path.suffix.lower()]
    if text:
        if format != "PNG":
            raise UserError(f"{path} cannot hold text: use a name that ends in .png")
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        for key, value in text.items():
            options["pnginfo"].add_itxt(key, value)
    encoded = io.BytesIO()
    try:
        image.save(encoded, format, **options)
    except (OSError, ValueError) as error:  # a mode or a size that the format does not have
        raise UserError(f"{path} cannot be written: {error}") from None
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        beside.write_bytes(encoded.getbuffer())
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)


def _read(path: Path, name: str, max_bytes: int) -> bytes:
    try:
        if not path.is_file():  # nor a device or a pipe, which may never end
            raise UserError(f"{name} is not {'a file' if path.exists() else 'there'}: give a picture or an http(s) address")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > max_bytes:
        raise UserError(f"{name} is larger than {max_bytes} bytes")
    return data


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(f"{name} ({width}x{height})", max_pixels)
    if not width or not height:
        raise UserError(f"{name} is empty ({width}x{height})")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            return _from_16_bit(image).convert("RGB")
        if image.mode == "F":
            raise UserError("its pixels are floating point numbers, without a white")
        return image.convert("RGB")
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise UserError(f"{name} cannot be decoded: {shorten(str(error) or type(error).__name__)}") from None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Gray from 0 to 65535 as gray from 0 to 255 (Pillow's own conversion makes all above 255 white)."""
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError("its pixels are 32-bit integers, without a white")
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))


def _too_large(name: str, max_pixels: int) -> UserError:
    return UserError(f"{name} has more than {max_pixels} pixels")
