"""Pictures, masks and depth hints as people bring them, to what the decoder starts from or is guided by.

Each function takes one of a kind or a list of them: PIL pictures of any mode, paths, arrays. Sizes are (height, width) in
pixels. After diffusers 0.42.1, image_processor.py (VaeImageProcessor) and pipelines/kandinsky2_2/
pipeline_kandinsky2_2_inpainting.py (prepare_mask_and_masked_image), but that every picture is RGB before it is resized,
that height and width keep their order, and that no caller's array is written to.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..pictures.images import load_image

Size = tuple[int, int]
BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
HALF = 0.5  # from here on a mask says: repaint


def as_list(value: Any, name: str) -> list[Any]:
    """One thing or several as a list: an array with one axis more than one picture has is several."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise UserError(f"{name} is an empty list: give at least one")
        return [each for item in value for each in as_list(item, name)]
    if _is_picture(value):
        return [value]
    array = _array(value, name)
    return list(array) if array.ndim == 4 else [array]


def images(image: Any, size: Size, name: str = "image") -> np.ndarray:
    """Pictures (N, 3, height, width) from -1 to 1, as the MoVQ encodes them.

    A picture of another size is resized, bicubic. Arrays are (height, width, 3) or (3, height, width): whole numbers from 0
    to 255; others from 0 to 1, or from -1 to 1 if one of them is negative.
    """
    return np.stack([_image(each, size, name) for each in as_list(image, name)])


def hints(hint: Any, size: Size, name: str = "hint") -> np.ndarray:
    """Depth hints (N, 3, height, width) from 0 (far) to 1 (near): as `images`, of one channel or three."""
    return np.stack([_unsigned(each, size, name) for each in as_list(hint, name)])


def masks(mask_image: Any, size: Size, name: str = "mask_image") -> np.ndarray:
    """Masks (N, height', width'), bool: True, white, from the middle gray on, is what to repaint.

    A picture is resized to `size`; an array keeps its own: (height', width'), with an axis of one before or after it,
    truth values, whole numbers of at most 1, or of at most 255, or others from 0 to 1.
    """
    found = [_mask(each, size, name) for each in _as_masks(mask_image, name)]
    if len({mask.shape for mask in found}) > 1:
        raise UserError(f"{name} has masks of several sizes: give them one size")
    return np.stack(found)


def kept_latents(masks: np.ndarray, size: Size) -> np.ndarray:
    """The latents that stay as they are (N, 1, height, width), 1 for those, 0 for those to repaint.

    masks: (N, height', width'), True to repaint. size: of the latents. Each takes the nearest pixel (that of number
    floor(i * height' / height)); then each repainted one takes along six of its eight neighbors, as prepare_mask of the
    reference's inpainting does.
    """
    rows, columns = (np.arange(side) * given // side for side, given in zip(size, masks.shape[1:]))
    kept = ~masks[:, rows][:, :, columns]
    padded = np.pad(kept, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    height, width = size

    def shifted(down: int, right: int) -> np.ndarray:
        return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    kept = np.logical_and.reduce([shifted(0, 0), shifted(1, 0), shifted(0, 1), shifted(1, 1), shifted(-1, 0), shifted(0, -1),
                                  shifted(-1, -1)])  # fmt: skip
    return kept[:, None].astype(np.float32)


def full_masks(masks: np.ndarray, size: Size) -> np.ndarray:
    """Masks (N, height, width) of the picture's own size, by the nearest pixel."""
    rows, columns = (np.arange(side) * given // side for side, given in zip(size, masks.shape[1:]))
    return masks[:, rows][:, :, columns]


def _image(value: Any, size: Size, name: str) -> np.ndarray:
    if _is_picture(value):
        return _of_picture(value, size) / np.float32(127.5) - np.float32(1)
    array = _array(value, name)
    low = -1 if array.dtype.kind == "f" and array.min() < 0 else 0
    array = _channels_first(_scaled(array, name, low), size, name, (3,))
    return array if low < 0 else array * np.float32(2) - np.float32(1)


def _unsigned(value: Any, size: Size, name: str) -> np.ndarray:
    if _is_picture(value):
        return _of_picture(value, size) / np.float32(255)
    array = _channels_first(_scaled(_array(value, name), name, 0), size, name, (1, 3))
    return np.ascontiguousarray(np.broadcast_to(array, (3, *size)))


def _mask(value: Any, size: Size, name: str) -> np.ndarray:
    if _is_picture(value):
        picture = load_image(value).resize(size[::-1], LANCZOS).convert("L")
        return np.asarray(picture) / np.float32(255) >= HALF
    array = _array(value, name)
    array = array.reshape([side for side in array.shape if side != 1] if array.ndim > 2 else array.shape)
    if array.ndim != 2:
        raise UserError(f"{name} has shape {np.shape(value)}: a mask is (height, width)")
    if array.dtype.kind in "iu" and array.max() <= 1:
        return array == 1
    return _scaled(array, name, 0) >= HALF


def _as_masks(mask_image: Any, name: str) -> list[Any]:
    found = as_list(mask_image, name)
    return [each for item in found for each in (_masks_of(item) if isinstance(item, np.ndarray) else [item])]


def _masks_of(array: np.ndarray) -> list[Any]:
    """(N, height, width) is several masks, but with an axis of one it is one, and with three or four channels a picture."""
    if array.ndim != 3 or 1 in (array.shape[0], array.shape[2]):
        return [array]
    return [Image.fromarray(array)] if array.shape[2] in (3, 4) and array.dtype == np.uint8 else list(array)


def _is_picture(value: Any) -> bool:
    return isinstance(value, (Image.Image, str, os.PathLike))


def _of_picture(value: Any, size: Size) -> np.ndarray:
    """(3, height, width) from 0 to 255, float32. Transparency is dropped, as `load_image` does."""
    picture = load_image(value).resize(size[::-1], BICUBIC, reducing_gap=1)
    return np.ascontiguousarray(np.asarray(picture, np.float32).transpose(2, 0, 1))


def _array(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)  # tensors of other libraries, too
    except Exception:  # whatever such a library raises
        array = np.asarray(None)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "fiu" or array.ndim < 2 or not array.size:
        raise UserError(f"{name} must be a picture, a path or an array of numbers, not {_describe(value)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{name} holds values that are not finite")
    return array


def _scaled(array: np.ndarray, name: str, low: int) -> np.ndarray:
    """Float32 from `low` to 1."""
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise UserError(f"{name} holds whole numbers from {array.min()} to {array.max()}: they must be from 0 to 255")
        return array.astype(np.float32) / np.float32(255)
    if array.min() < low or array.max() > 1:
        raise UserError(f"{name} holds values from {array.min():g} to {array.max():g}: they must be from {low} to 1, or whole "
                        "numbers (of an integer type) from 0 to 255")
    return array.astype(np.float32)


def _channels_first(array: np.ndarray, size: Size, name: str, channels: tuple[int, ...]) -> np.ndarray:
    """(channels, height, width) of `size`, resized if it has another."""
    if array.ndim == 2 and 1 in channels:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] in channels and array.shape[0] not in channels:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] not in channels:
        wanted = " or ".join(str(count) for count in channels)
        raise UserError(f"{name} has shape {array.shape}: an array must be (height, width, channels) or (channels, height, "
                        f"width) with {wanted} channels")
    if array.shape[1:] == size:
        return np.ascontiguousarray(array)
    resized = [np.asarray(Image.fromarray(channel).resize(size[::-1], BICUBIC)) for channel in np.ascontiguousarray(array)]
    return np.clip(np.stack(resized), array.min(), array.max())


def _describe(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")
