"""Inpainting and depth beside what test_family.py holds against diffusers: rows, pasted pixels, requests, what a bundle lacks."""

from functools import partial

import numpy as np
import pytest
from kandinsky_mindir.runner import (
    KandinskyV22CombinedPipeline,
    KandinskyV22ControlnetPipeline,
    KandinskyV22InpaintCombinedPipeline,
    KandinskyV22InpaintPipeline,
    TorchGenerator,
    UserError,
)
from test_img2img import picture

SIZE = HEIGHT, WIDTH = 16, 24
STEPS = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": 6}


def embeds(rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 32)).astype(np.float32)


def mask(seed=0):
    """Float, white where to repaint: a rectangle and a dot."""
    found = np.zeros(SIZE, np.float32)
    found[2:9, 3 + 4 * seed : 12 + 4 * seed] = 1
    found[13, 20] = 0.5
    return found


def hint(seed=0):
    """Eight times as large as the latents, as diffusers needs it: its MoVQ makes pictures of twice their size only."""
    y, x = np.mgrid[:64, :96]
    depth = np.clip(1 - np.hypot(y - 32, x - 36 - 12 * seed) / 36, 0, 1).astype(np.float32)
    return np.stack([depth] * 3)


@pytest.fixture(scope="module")
def ours(bundles):
    opened = {}

    def pipeline(cls):
        if cls not in opened:
            opened[cls] = cls.from_pretrained(bundles("family"))
            opened[cls].set_progress_bar_config(disable=True)
        opened[cls].scheduler = "checkpoint"
        return opened[cls]

    return pipeline


@pytest.mark.parametrize("cls, ways", (
    (KandinskyV22InpaintPipeline, {"image": (picture(16, 24), picture(16, 24, 1)), "mask_image": (mask(), mask(1))}),
    (KandinskyV22ControlnetPipeline, {"hint": (hint(), hint(1))}),
))  # fmt: skip
def test_each_row_is_what_it_is_alone(cls, ways, ours, tape):
    """diffusers keeps the first picture's background for all."""
    pipeline, noise = ours(cls), tape(2)
    options = {**STEPS, "output_type": "latent", "guidance_scale": 4.0}
    brought = {name: list(values) for name, values in ways.items()}
    together = pipeline(embeds(2), generator=noise, **brought, **options)[0]
    drawn = tape(2)
    draws = [drawn.standard_normal(shape) for shape in noise.shapes]
    for row in range(2):

        class Own:
            rest = iter([draw[row : row + 1] for draw in draws])

            def standard_normal(self, size):
                return next(self.rest)

        alone = {name: values[row] for name, values in ways.items()}
        assert np.array_equal(pipeline(embeds(2)[row:][:1], generator=Own(), **alone, **options)[0][0], together[row])
    assert len(pipeline(embeds(2), generator=1, **alone, **options)[0]) == 2  # one serves both


def test_pasted_pixels_are_the_pictures_own(ours):
    start, wanted = picture(16, 24), mask()
    options = {**STEPS, "generator": 1, "image": start, "mask_image": wanted}
    pipeline = ours(KandinskyV22InpaintPipeline)
    (pasted,), (plain,) = (pipeline(embeds(1), **options, paste=paste)[0] for paste in (True, False))
    pasted, plain, start = (np.asarray(image) for image in (pasted, plain, start))
    assert np.array_equal(pasted[wanted < 0.5], start[wanted < 0.5]) and np.array_equal(pasted[wanted >= 0.5], plain[wanted >= 0.5])
    assert not np.array_equal(plain[wanted < 0.5], start[wanted < 0.5])


@pytest.mark.parametrize("sampler", ("euler", "heun", "euler-a"))
def test_kept_latents_are_noisy_as_the_sampler_says(sampler, ours):
    """Whatever the first noise is multiplied by: diffusers keeps it multiplied."""
    pipeline, seen = ours(KandinskyV22InpaintPipeline), []
    pipeline.scheduler = sampler
    schedule = pipeline.scheduler.schedule(6)
    noise = np.random.default_rng(1).standard_normal((1, 4, 8, 12)).astype(np.float32)
    nothing = np.zeros(SIZE, np.float32)
    encoded = pipeline(embeds(1), image=picture(16, 24), mask_image=nothing, latents=noise, output_type="latent", generator=2,
                       callback_on_step_end=lambda call, index, timestep, tensors: seen.append(tensors["latents"]), **STEPS)[0]
    for index, latents in enumerate(seen[:-1]):
        np.testing.assert_allclose(latents, schedule.noised(encoded, noise, index + 1), rtol=0, atol=1e-5)
    assert np.array_equal(seen[-1], encoded)


def test_requests_and_what_a_bundle_lacks(ours, bundles):
    """A combined pipeline of texts makes what a request brings; its sampler and steps are of that decoder."""
    combined = ours(KandinskyV22InpaintCombinedPipeline)
    size = {"height": HEIGHT, "width": WIDTH}
    options = {**size, "num_inference_steps": 3, "prior_num_inference_steps": 2, "output_type": "np"}
    images = combined(["a cat", "a dog"], picture(16, 24), mask(), generator=TorchGenerator(0), **options)[0]
    assert images.shape == (2, HEIGHT, WIDTH, 3)
    with pytest.raises(UserError, match="has no inpaint decoder: export it again"):
        KandinskyV22InpaintPipeline.from_pretrained(bundles("narrow"))
    plain = partial(KandinskyV22CombinedPipeline.from_pretrained(bundles("family")), "a cat", num_inference_steps=1)
    assert plain(prior_num_inference_steps=2, generator=0, **size).images[0].size == (WIDTH, HEIGHT)
