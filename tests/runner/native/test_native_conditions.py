"""What the C++ library makes of pictures to start from, masks and depth hints is what Python makes of them, bit for bit."""

import numpy as np
import pytest
from kandinsky_mindir.runner.inputs import conditions
from PIL import Image

SIZES = [  # (width, height) of the picture, (height, width) of the values, of the latents
    ((24, 16), (16, 24), (8, 12)), ((31, 40), (16, 24), (2, 3)), ((25, 60), (64, 64), (8, 8)), ((48, 32), (16, 24), (8, 12)),
    ((301, 97), (16, 24), (7, 5)), ((97, 16), (16, 24), (8, 12)), ((24, 200), (16, 24), (8, 12)), ((1000, 700), (64, 96), (8, 12)),
    ((1, 1), (16, 24), (2, 3)), ((3, 700), (9, 2), (3, 2)),
]  # fmt: skip


def blots(width, height):
    """Noise, white and black areas, and gray just below and above the middle."""
    random = np.random.default_rng(width * height)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    pixels[height // 3 :, : width // 2] = 255
    pixels[: height // 3, width // 3 :] = random.integers(126, 130, 3)
    pixels[2 * height // 3 :, 2 * width // 3 :] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize("picture, size, latents", SIZES)
def test_values_are_pythons(leaves, picture, size, latents):
    image = blots(*picture)
    mask = conditions.masks(image, size)
    expected = [conditions.images(image, size), conditions.hints(image, size), mask.astype(np.uint8), conditions.kept_latents(mask, latents)]
    found = leaves.call("conditions", *picture, image.tobytes(), *size, *latents)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs.tobytes()


def test_a_mask_is_no_constant():
    """Both values are among those above, else they would prove little."""
    masks = [conditions.masks(blots(*picture), size) for picture, size, _ in SIZES]
    assert {bool(value) for mask in masks for value in np.unique(mask)} == {False, True}
    assert sum(mask.any() and not mask.all() for mask in masks) >= 8
