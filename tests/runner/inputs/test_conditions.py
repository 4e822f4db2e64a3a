"""What people bring to start from: pictures of any mode, arrays, paths; as diffusers makes of it where that is right."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.inputs.conditions import images
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)
SIZE = (16, 24)
ROUNDING = 3e-7  # three float32 operations on numbers up to 2
LEVEL = 2 / 255  # of a picture, in -1 to 1


def test_a_picture_is_resized_as_in_diffusers():
    processor = VaeImageProcessor(vae_scale_factor=8, resample="bicubic", reducing_gap=1)
    expected = processor.preprocess(PICTURE, *SIZE).numpy()
    np.testing.assert_allclose(images(PICTURE, SIZE), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("mode", ("RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "YCbCr"))
def test_modes(mode):
    """Every mode is made RGB first: RGBA, L, P and CMYK stop diffusers."""
    picture = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257) if mode == "I;16" else PICTURE.convert(mode)
    plain = Image.fromarray(PIXELS[..., 0]).convert("RGB") if mode == "I;16" else picture.convert("RGB")
    assert np.array_equal(images(picture, SIZE), images(plain, SIZE))


def test_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    PICTURE.save(tmp_path / "turned.png", exif=exif)
    expected = images(PICTURE.transpose(Image.Transpose.ROTATE_270), SIZE)
    assert np.array_equal(images(tmp_path / "turned.png", SIZE), expected)
    assert np.array_equal(images(str(tmp_path / "turned.png"), SIZE), expected)


def test_arrays():
    """Whole numbers from 0 to 255, others from 0 to 1 or -1 to 1; channels first or last; tensors, lists, stacks."""
    size, unit = PIXELS.shape[:2], PIXELS.astype(np.float32) / 255
    expected = images(PICTURE, size)
    given = (PIXELS, PIXELS.astype(np.int64), unit, unit.astype(np.float64), unit * 2 - 1, unit.transpose(2, 0, 1), unit[None],
             torch.from_numpy(unit.transpose(2, 0, 1))[None], [unit], (PICTURE,))  # fmt: skip
    for value in given:
        np.testing.assert_allclose(images(value, size), expected, rtol=0, atol=ROUNDING)
    assert images([PICTURE, unit], size).shape == images(np.stack([unit, unit]), size).shape == (2, 3, *size)
    assert images(unit.astype(np.float16), size).dtype == np.float32


def test_an_array_of_another_size_is_resized():
    """As a picture is, but for the rounding of that one to whole levels."""
    pixels = PIXELS // 2 + 64  # nothing overshoots black or white
    expected = images(Image.fromarray(pixels).resize(SIZE[::-1], Image.Resampling.BICUBIC), SIZE)
    # Pillow rounds such a picture to whole levels after each direction: half a level, spread by weights of 1.2 in all, and half.
    assert np.abs(images(pixels.astype(np.float32) / 255, SIZE) - expected).max() < 1.5 * LEVEL


@pytest.mark.parametrize("value, message", (
    (None, "must be a picture, a path or an array"), ("nowhere.png", "nowhere.png cannot be read"), ([], "empty list"),
    (np.zeros((4, 4, 2), np.uint8), "has shape"), (np.full((4, 4, 3), 300), "from 0 to 255"), (np.zeros(3), "must be a picture"),
    (np.full((4, 4, 3), 7.0), "from 0 to 1"), (np.full((4, 4, 3), np.nan), "not finite"), (np.array([["a"]]), "must be a picture"),
    (np.full((4, 4, 3), -1), "whole numbers from -1"), (3, "must be a picture"),
))  # fmt: skip
def test_what_cannot_be_used(value, message):
    with pytest.raises(UserError, match=message) as caught:
        images(value, SIZE)
    assert "\n" not in str(caught.value)
