"""What people bring to start from: pictures of any mode, arrays, paths; as diffusers makes of it where that is right."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.kandinsky2_2.pipeline_kandinsky2_2_inpainting import prepare_mask, prepare_mask_and_masked_image
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.inputs.conditions import full_masks, hints, images, kept_latents, masks
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


def theirs(mask, size):
    """True to repaint, as the reference reads a mask."""
    kept, _ = prepare_mask_and_masked_image(PICTURE, mask, *size)
    return kept.numpy()[:, 0] < 0.5


@pytest.mark.parametrize("mode", ("L", "RGB", "1"))
def test_masks_as_in_diffusers(mode):
    """Pictures are resized with Lanczos; from the middle gray on they are white."""
    picture = PICTURE.convert(mode)
    assert np.array_equal(masks(picture, SIZE), theirs(picture.convert("L") if mode == "1" else picture, SIZE))
    for gray, white in ((127, False), (128, True)):
        assert (masks(Image.new("L", (8, 8), gray), SIZE) == white).all()


def test_arrays_of_masks():
    """Truth values, 0 and 1, 0 to 255, floats from 0 to 1, with an axis of one, in stacks; the caller's own is not changed."""
    wanted = np.random.default_rng(1).random((9, 7)) > 0.6
    unit = wanted * np.float32(0.5)
    before = unit.copy()
    for value in (wanted, wanted.astype(np.uint8), wanted.astype(np.int64), wanted * np.uint8(255), unit, unit.astype(np.float64),
                  unit[None], unit[..., None], torch.from_numpy(unit)[None, None], [unit],
                  np.stack([wanted * np.uint8(255)] * 3, -1)):  # fmt: skip
        found = masks(value, (9, 7))
        assert found.dtype == bool and np.array_equal(found, wanted[None])
    assert masks(np.stack([unit] * 2), SIZE).shape == masks([wanted, unit], SIZE).shape == (2, 9, 7)
    assert np.array_equal(unit, before) and np.array_equal(masks(unit, SIZE), theirs(unit, SIZE))
    for wrong, message in ((unit * 3, "from 0 to 1"), (np.zeros((2, 2, 2, 2, 2)), "has shape"), (None, "must be a picture"),
                           ([unit, unit[1:]], "several sizes"), (unit - 1, "from 0 to 1")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            masks(wrong, SIZE)


@pytest.mark.parametrize("given, size", (((64, 64), (8, 8)), ((100, 96), (8, 12)), ((5, 7), (16, 24))))
def test_kept_latents_as_in_diffusers(given, size):
    """The nearest pixel, then six of the eight neighbors of what is repainted."""
    wanted = np.random.default_rng(2).random((2, *given)) > 0.8
    kept = torch.nn.functional.interpolate(torch.from_numpy(1 - wanted[:, None].astype(np.float32)), size, mode="nearest")
    expected = np.concatenate([prepare_mask(row[None].clone()).numpy() for row in kept])
    assert np.array_equal(kept_latents(wanted, size), expected)
    assert np.array_equal(full_masks(wanted, size)[:, None], kept.numpy() < 0.5)


def test_hints():
    """Depth as pictures, gray arrays, three equal channels; of another size it is resized."""
    depth = PIXELS[..., 0]
    expected = np.stack([depth.astype(np.float32) / 255] * 3)[None]
    for value in (Image.fromarray(depth), depth, depth[..., None], depth.astype(np.float32) / 255, np.stack([depth] * 3, -1),
                  torch.from_numpy(expected), expected[0]):  # fmt: skip
        np.testing.assert_allclose(hints(value, depth.shape), expected, rtol=0, atol=ROUNDING)
    assert hints(depth, SIZE).shape == hints(Image.fromarray(depth), SIZE).shape == (1, 3, *SIZE)
    assert np.array_equal(hints(Image.fromarray(depth.astype(np.uint16) * 257), depth.shape), hints(depth, depth.shape))
    for wrong, message in ((None, "must be a picture"), (depth / 2.0, "from 0 to 1"), (np.zeros((4, 4, 2)), "has shape")):
        with pytest.raises(UserError, match=message):
            hints(wrong, SIZE)
