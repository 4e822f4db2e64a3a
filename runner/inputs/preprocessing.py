"""Pictures to the image encoder's pixel values, as transformers' CLIPImageProcessor with its Pillow backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..common.errors import UserError
from ..pictures.images import to_8_bit

CLASSES = ("CLIPImageProcessor", "CLIPImageProcessorPil", "CLIPImageProcessorFast", "CLIPFeatureExtractor")
DEFAULTS = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "default_to_square": False,  # what a plain number in `size` means
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
CLASS_KEYS = ("image_processor_type", "feature_extractor_type")
IGNORED = ("processor_class", "data_format", "input_data_format", "return_tensors", "device", "disable_grouping")
LONGEST = 200  # times the shorter side: a longer picture would be blown up to gigabytes, then cropped to its middle


class ImageProcessor:
    """Called with a PIL picture, returns its pixel values (1, 3, height, width), float32.

    config: a `preprocessor_config.json` of transformers, 4 or 5, or of its older feature extractors. Raises UserError
    that names a key or a value that this class does not know.
    """

    def __init__(self, config: Mapping[str, Any]):
        options: dict[str, Any] = dict(DEFAULTS)
        for key, value in config.items():
            if key in CLASS_KEYS and value not in CLASSES:
                raise _unknown(key, value, f"known are {', '.join(CLASSES)}")
            if key in DEFAULTS and value is not None:  # transformers writes null for its defaults
                options[key] = value
            elif key not in DEFAULTS and key not in CLASS_KEYS + IGNORED and value not in (None, False):
                raise _unknown(key, value, f"known are {', '.join(DEFAULTS)}")
        for key, default in DEFAULTS.items():
            if isinstance(default, bool) and not isinstance(options[key], bool):
                raise _unknown(key, options[key], "it must be true or false")
        if options["resample"] not in tuple(RESAMPLING):
            raise _unknown("resample", options["resample"], f"known are {RESAMPLING}")
        scale = options["rescale_factor"]
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < np.inf:
            raise _unknown("rescale_factor", scale, "it must be a positive number")
        self._convert = options["do_convert_rgb"]
        self._resize, self._crop = options["do_resize"], options["do_center_crop"]
        self._size = _size("size", options["size"], square=bool(options["default_to_square"]))
        self._crop_size = _size("crop_size", options["crop_size"], square=True)
        if len(self._crop_size) != 2:
            raise _unknown("crop_size", options["crop_size"], "it needs height and width")
        self._resample = options["resample"]
        self._scale = scale if options["do_rescale"] else None
        self._mean, self._std = _channels("image_mean", options), _channels("image_std", options)
        if (self._std <= 0).any():
            raise _unknown("image_std", options["image_std"], "it must be positive")
        self._normalize = options["do_normalize"]

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of the pixel values; None where they depend on the picture."""
        if self._crop:
            return self._crop_size[0], self._crop_size[1]
        return (self._size[0], self._size[1]) if self._resize and len(self._size) == 2 else None

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Pixel values of a picture, equal to transformers' to the last bit, but that 16-bit gray is scaled.

        Transparency is laid on white, as transformers 5 does.
        """
        width, height = image.size
        if not width or not height or max(width, height) > LONGEST * min(width, height):
            raise UserError(f"a picture of {width}x{height} pixels cannot be used: "
                            f"its sides must not be empty nor differ by more than {LONGEST} times")
        image = self._to_rgb(image)
        if self._resize:
            image = image.resize(self._resized(width, height), self._resample)
        if self._crop:
            image = _center_crop(image, *self._crop_size)
        pixels = np.asarray(image)
        if self._scale is not None:
            pixels = (pixels.astype(np.float64) * self._scale).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if self._normalize:
            pixels = (pixels - self._mean) / self._std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])

    def _to_rgb(self, image: Image.Image) -> Image.Image:
        if not self._convert:
            if image.mode != "RGB":
                raise UserError(f"do_convert_rgb is false, and the picture is {image.mode}: convert it to RGB first")
            return image
        image = to_8_bit(image)
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """transformers, image_transforms.get_resize_output_image_size: both sides, or the shorter one with the longer
        in proportion, rounded down."""
        if len(self._size) == 2:
            return self._size[1], self._size[0]
        (short,) = self._size
        long = int(short * max(width, height) / min(width, height))
        return (short, long) if width <= height else (long, short)


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle, with black around it where the picture is smaller."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _size(key: str, value: Any, *, square: bool) -> tuple[int, ...]:
    """(shortest edge,) or (height, width), from a number, a pair or an object."""
    if isinstance(value, Mapping):
        names = {name for name, length in value.items() if length is not None}
        if names not in ({"shortest_edge"}, {"height", "width"}):
            raise _unknown(key, dict(value), "it must hold shortest_edge, or height and width")
        size = tuple(value[name] for name in sorted(names))
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        size = tuple(value)
    else:
        size = (value, value) if square else (value,)
    if not all(isinstance(length, int) and not isinstance(length, bool) and 0 < length <= 4096 for length in size):
        raise _unknown(key, value, "lengths must be integers from 1 to 4096")
    return size


def _channels(key: str, options: Mapping[str, Any]) -> np.ndarray:
    try:
        values = np.asarray(options[key], np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.shape not in ((), (3,)) or not np.isfinite(values).all():
        raise _unknown(key, options[key], "it must be one number, or three")
    return values


def _unknown(key: str, value: Any, hint: str) -> UserError:
    return UserError(f"the image processor's {key} is {value!r}: {hint}")
