"""Pictures that requests bring, as bytes and never as an address or a path; and files of those that are made."""

from __future__ import annotations

import base64
import binascii
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, PngImagePlugin

from ...common.errors import UserError
from ...pictures.images import read_picture
from ...pictures.provenance import Provenance
from .errors import invalid

HALF = 127  # of 255: a mask repaints what is above
FORMATS = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


class Form(NamedTuple):
    """How a picture is sent. compression: 0 to 100, of WebP and JPEG: higher is finer, as in OpenAI's interface."""

    name: str = "png"
    compression: int = 100


def decode(text: object, param: str, most_pixels: int) -> Image.Image:
    """The picture of base64 text, bare or as a data address, or of bytes, as RGB."""
    return read(data_of(text, param), param, most_pixels)


def decode_mask(text: object, param: str, most_pixels: int, *, clear: bool, invert: bool = False) -> Image.Image:
    """The mask of base64 text or bytes, as RGB: white is what to repaint. ApiError where there is nothing to repaint.

    In a mask without transparency that is what is white. In one with it, what is transparent (clear: OpenAI's sense) or
    what is opaque (A1111's: modules/processing.py, create_binary_mask). invert: then the other way round.
    """
    data = data_of(text, param)
    mask = read(data, param, most_pixels)
    with Image.open(io.BytesIO(data)) as image:
        if image.has_transparency_data:
            alpha = image.convert("RGBA").getchannel("A")
            if alpha.getextrema() != (255, 255):
                mask = (ImageChops.invert(alpha) if clear else alpha).convert("RGB")
    mask = ImageChops.invert(mask) if invert else mask
    if np.asarray(mask.convert("L")).max() <= HALF:
        raise invalid(f"{param} shows nothing to repaint", param)
    return mask


def data_of(text: object, param: str) -> bytes:
    """The bytes of a picture. ApiError for what is none: an address above all."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise invalid(f"{param} must be a picture in base64", param)
    if "://" in text[:64] or text[:5] == "file:":
        raise invalid(f"{param} is an address: this server opens none, send the picture itself in base64", param, "no_addresses")
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"{param} must be a picture in base64", param) from None


def read(data: bytes, param: str, most_pixels: int) -> Image.Image:
    try:
        return read_picture(data, param, most_pixels)
    except UserError as error:
        raise invalid(str(error), param, "invalid_image") from None


def encode(image: Image.Image, form: Form, provenance: Provenance | None = None) -> bytes:
    """The file of a picture. A PNG carries how it was made."""
    file = io.BytesIO()
    if form.name == "png":
        text = PngImagePlugin.PngInfo()
        for key, value in (provenance.text() if provenance else {}).items():
            text.add_itxt(key, value)
        image.save(file, "PNG", pnginfo=text)
    elif form.name == "webp":
        image.save(file, "WEBP", lossless=form.compression == 100, quality=form.compression)
    else:
        image.save(file, "JPEG", quality=max(form.compression, 1), subsampling=0 if form.compression > 90 else 2)
    return file.getvalue()


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
