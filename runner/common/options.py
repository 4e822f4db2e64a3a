"""The options of a request, each checked in one place before anything is loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .errors import UserError

MOST_PIXELS = 2**26
LARGEST = float(np.finfo(np.float32).max)


def plain(value: Any) -> Any:
    """A NumPy scalar as Python's own number, which compares and multiplies without overflow; anything else as it is."""
    if not isinstance(value, np.generic):
        return value
    value = value.item()
    return float(value) if isinstance(value, np.floating) else value  # a long double stays one


def as_text(value: Any, name: str) -> str:
    """A text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise UserError(f"{name} is {value!r}: it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # a surrogate without its other half
        raise UserError(f"{name} must be Unicode text, not {value!r}") from None
    return str(value)


def as_texts(value: Any, name: str) -> list[str]:
    """A text or a list of texts as a list; UserError if it is empty or holds anything else."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} must be a text or a list of texts, not {_describe(value)}")
    if not texts:
        raise UserError(f"{name} is an empty list: give at least one text")
    return [as_text(text, name) for text in texts]


def as_choice(value: Any, known: tuple[str, ...], name: str) -> str:
    """One of the words in `known`."""
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{name} is {value!r}: choose one of {', '.join(known)}")
    return str(value)


def as_weights(weights: Any, items: Sequence) -> list[float]:
    """One finite weight for each item, not all of them zero."""
    if not isinstance(items, (list, tuple)) or not items:
        raise UserError("images_and_prompts must be a list with at least one text or picture")
    if not isinstance(weights, (list, tuple, np.ndarray)):
        raise UserError(f"weights must be a list of numbers, not {_describe(weights)}")
    if len(items) != len(weights):
        raise UserError(f"images_and_prompts has {len(items)} items and weights has {len(weights)}: give one weight an item")
    weights = [as_number(weight, f"weights[{i}]") for i, weight in enumerate(weights)]
    if not any(weights):
        raise UserError("weights are all zero: at least one must not be")
    return weights


def as_count(value: Any, name: str, most: int | None = None) -> int:
    """A whole number of at least 1, and at most `most`."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name} is {value!r}: it must be a whole number of at least 1")
    if most is not None and value > most:
        raise UserError(f"{name} is {value}: at most {most} are made at a time")
    return value


def as_pixels(value: Any, name: str) -> int:
    """A side of a picture, in pixels."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST_PIXELS:
        raise UserError(f"{name} is {value!r}: it must be a positive whole number of pixels")
    return int(value)


def as_size(height: Any, width: Any, scale_factor: int) -> tuple[int, int]:
    """The size in pixels that is made when height x width is asked for: sides rounded up to a multiple of the MoVQ's
    squared scale factor, as diffusers' ``pipeline_kandinsky2_2.py: downscale_height_and_width`` does."""
    step = scale_factor**2
    sides = as_pixels(height, "height"), as_pixels(width, "width")
    return math.ceil(sides[0] / step) * step, math.ceil(sides[1] / step) * step


def as_guidance_scale(value: Any, name: str) -> float:
    """A guidance scale: not negative."""
    value = as_number(value, name)
    if value < 0:
        raise UserError(f"{name} is {value}: it must not be negative (1 switches guidance off)")
    return value


def as_share(value: Any, name: str) -> float:
    """A number from 0 to 1."""
    value = as_number(value, name)
    if not 0 <= value <= 1:
        raise UserError(f"{name} is {value}: it must be from 0 (off) to 1")
    return value


def as_strength(value: Any, name: str = "strength") -> float:
    """How much of a start is made anew: above 0, at most 1."""
    value = as_number(value, name)
    if not 0 < value <= 1:
        raise UserError(f"{name} is {value:g}: it must be above 0 (the start comes back) and at most 1 (all of it is made anew)")
    return value


def as_interval(value: Any, name: str) -> tuple[float, float]:
    """(start, stop), shares of the steps: 0 <= start < stop <= 1."""
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        raise UserError(f"{name} is {value!r}: it must be (start, stop)")
    start, stop = (as_number(end, f"an end of {name}") for end in value)
    if not 0 <= start < stop <= 1:
        raise UserError(f"{name} is ({start:g}, {stop:g}): it must be shares of the steps, 0 <= start < stop <= 1")
    return start, stop


def as_array(value: Any, name: str, width: int) -> np.ndarray:
    """Embeddings as (rows, width) float32: an array, or a list of arrays that is joined as diffusers does."""
    try:
        array = np.concatenate([np.asarray(item) for item in value]) if isinstance(value, list) else value
    except ValueError:
        raise UserError(f"{name} must be an array of numbers, not {_describe(value)}") from None
    array = as_floats(array, name)
    if array.ndim != 2 or array.shape[1] != width or not len(array):
        raise UserError(f"{name} has shape {array.shape}: this bundle needs (rows, {width})")
    return array


def as_floats(value: Any, name: str) -> np.ndarray:
    """An array of finite numbers as float32."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name} must be an array of numbers, not {_describe(value)}")
    with np.errstate(over="ignore"):  # too large for float32: infinite, which is refused
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds values that are not finite")
    return array


def as_number(value: Any, name: str) -> float:
    """A number that is finite as float32, too."""
    value = plain(value)
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not abs(value) <= LARGEST:  # a NaN is not either
        raise UserError(f"{name} is {value!r}: it must be a finite number")
    return float(value)


def _describe(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        wrong = next((item for item in value if not isinstance(item, str)), None)
        return f"a list that holds a {type(wrong).__name__}"
    return f"a {type(value).__name__}"


# Options of diffusers' and mindone's from_pretrained that say how a checkpoint is found, read or placed.
WITHOUT_MEANING = frozenset((
    "cache_dir", "custom_pipeline", "custom_revision", "device_map", "disable_mmap", "dtype", "force_download",
    "local_files_only", "low_cpu_mem_usage", "max_memory", "mindspore", "mindspore_dtype", "mirror", "offload_folder",
    "offload_state_dict", "output_loading_info", "proxies", "resume_download", "revision", "subfolder", "token", "torch_dtype",
    "trust_remote_code", "use_auth_token", "use_onnx", "use_safetensors", "variant",
))  # fmt: skip


def without_meaning(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Warn, in one line, of the options `given` that mean nothing for a bundle; UserError for one that nobody knows."""
    unknown = [name for name in given if name not in WITHOUT_MEANING]
    if unknown:
        raise UserError(f"{where} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    if given:
        warnings.warn(f"{', '.join(given)}: this means nothing for a bundle, which is a folder; precision= chooses float32, "
                      "bfloat16 or float16", stacklevel=3)
