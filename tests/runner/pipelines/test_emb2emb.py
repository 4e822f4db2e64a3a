"""Text and a picture to image embeddings: against diffusers, with and without a negative prompt."""

from functools import cache

import checkpoints
import numpy as np
import pytest
import torch
from diffusers import KandinskyV22PriorEmb2EmbPipeline as Reference
from kandinsky_mindir.runner import KandinskyV22PriorEmb2EmbPipeline, UserError
from psnr import picture
from references import relative_error

# Some ten steps of a network whose own error is 1e-5 (tests/models), each fed with the last.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def opened(bundles):
    """A function from a bundle's name to its pipeline, whose models are loaded once for all rows."""

    @cache
    def pipeline(name):
        found = KandinskyV22PriorEmb2EmbPipeline.from_pretrained(bundles(name))
        found.set_progress_bar_config(disable=True)
        return found

    return pipeline


@pytest.fixture(scope="module")
def ours(opened):
    return opened("narrow")


def reference(name):
    pipeline = Reference(**checkpoints.pipelines(name)[0].components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance_scale", (1.0, 4.0))
@pytest.mark.parametrize("negative", (None, "a dog"), ids=("plain", "negative"))
@pytest.mark.parametrize("strength", (0.3, 0.85, 1.0))
@pytest.mark.parametrize("name", ("narrow", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wide", "mixed", "micro-family"))))
def test_as_diffusers(name, strength, negative, guidance_scale, opened):
    """The numbers of a generator of torch, and as many of them as there."""
    ours, theirs = opened(name), reference(checkpoints.FAMILIES.get(name, name))
    options = {"negative_prompt": negative, "strength": strength, "num_inference_steps": 10, "guidance_scale": guidance_scale,
               "num_images_per_prompt": 2}  # fmt: skip
    own, other = (torch.Generator().manual_seed(1) for _ in range(2))
    expected = theirs("a cat", picture(), generator=other, **options).to_tuple()
    actual = ours("a cat", picture(), generator=own, **options)
    assert torch.equal(own.get_state(), other.get_state())
    for found, wanted in zip(actual, expected):
        assert relative_error(found, wanted) <= TOLERANCE


def test_an_embedding_and_pixel_values_do_as_well(ours):
    options = {"generator": 3, "num_inference_steps": 4, "strength": 0.5}
    expected = ours(["a cat", "a dog"], picture(), **options)[0]
    pixels = ours.image_processor(picture())
    start = ours.interpolate([picture()], [1.0]).image_embeds
    for given in (pixels, [pixels[0]], start, [start, start[0]]):
        assert np.array_equal(ours(["a cat", "a dog"], given, **options)[0], expected)


def test_draws_and_steps(ours, tape):
    noise = tape()
    ours("a cat", np.ones((1, 32), np.float32), generator=noise, num_inference_steps=25)
    assert noise.shapes == [(1, 32)] * 7  # one to begin with, and one for each of int(25 * 0.3) steps but the last
    with pytest.raises(UserError, match="strength 0.03 makes none of 25 steps: give at least 0.04"):
        ours("a cat", picture(), strength=0.03, num_inference_steps=25)
    with pytest.raises(UserError, match="image is 2 pictures and prompt has 3 texts"):
        ours(["a", "b", "c"], [picture(), picture()])


def test_normalized_first(ours):
    """(embedding - clip_mean) / clip_std, and nothing else, is what the option changes."""
    mean, std = (ours.bundle.constants[name] for name in ("clip_mean", "clip_std"))
    start = np.random.default_rng(0).standard_normal((1, 32)).astype(np.float32)
    options = {"strength": 0.5, "num_inference_steps": 4, "generator": 7}
    expected = ours("a cat", (start - mean) / std, **options)[0]
    assert np.array_equal(ours("a cat", start, normalize=True, **options)[0], expected)
    assert not np.array_equal(ours("a cat", start, **options)[0], expected)
