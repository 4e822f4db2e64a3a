"""Pictures that start from a picture: against diffusers where it is right, against single correct runs where it is not."""

import checkpoints
import diffusers
import numpy as np
import pytest
import torch
from kandinsky_mindir.runner import (
    KandinskyV22Img2ImgCombinedPipeline,
    KandinskyV22Img2ImgPipeline,
    TorchGenerator,
    UserError,
)
from kandinsky_mindir.runner.pipelines.base import skipped_steps
from PIL import Image
from psnr import LEAST_PSNR, psnr

NAMES = ("narrow", pytest.param("wide", marks=pytest.mark.slow), pytest.param("micro", marks=pytest.mark.slow))
# Beside the checkpoint's own. diffusers never scales what it shows the model, which Euler and Heun need.
SAMPLERS = ("ddim", "dpmpp-2m", "dpmpp-2m-sde", "lcm")
DIFFUSERS = {"ddim": diffusers.DDIMScheduler, "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
             "dpmpp-2m-sde": diffusers.DPMSolverMultistepScheduler, "lcm": diffusers.LCMScheduler}  # fmt: skip


def picture(height, width, seed=0):
    """Edges, gradients and some noise, of the seed's own colors."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 200 // width, y * 250 // height, 255 * ((x + seed * y) % 9 > 4)], -1)
    return Image.fromarray(np.clip(pixels + random.integers(0, 30, 3) * (1 + seed), 0, 255).astype(np.uint8))


def embeds(name, rows, seed=0):
    width = {"narrow": 32, "wide": 48, "micro": 128}[name]
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.fixture(scope="module")
def ours(bundles):
    opened = {}

    def pipeline(name, cls=KandinskyV22Img2ImgPipeline):
        if (name, cls) not in opened:
            opened[name, cls] = cls.from_pretrained(bundles(name))
            opened[name, cls].set_progress_bar_config(disable=True)
        opened[name, cls].scheduler = "checkpoint"
        return opened[name, cls]

    return pipeline


def reference(name, sampler="checkpoint"):
    """diffusers' pipeline on the parts of the checkpoint."""
    _, decoder = checkpoints.pipelines(name)
    scheduler = decoder.scheduler
    if sampler != "checkpoint":
        config = {key: value for key, value in scheduler.config.items() if key not in ("variance_type", "_use_default_values")}
        options = {"algorithm_type": "sde-dpmsolver++"} if sampler.endswith("-sde") else {}
        scheduler = DIFFUSERS[sampler].from_config(config, **options)
    pipeline = diffusers.KandinskyV22Img2ImgPipeline(unet=decoder.unet, movq=decoder.movq, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compare(ours, name, given, size, *, image, sampler="checkpoint", **options):
    """(PSNR against diffusers, the noise that both drew). Height and width are exchanged for diffusers, which does so itself."""
    (height, width), (image_embeds, negatives) = size, given
    theirs = reference(name, sampler)(
        torch.from_numpy(image_embeds), image, torch.from_numpy(negatives), height=width, width=height, output_type="np",
        num_inference_steps=10, generator=torch.Generator().manual_seed(3), **options,
    ).images  # fmt: skip
    pipeline = ours(name)
    pipeline.scheduler = sampler
    actual = pipeline(image_embeds, image, negatives, height=height, width=width, output_type="np", num_inference_steps=10,
                      generator=TorchGenerator(3), **options).images
    assert actual.shape == theirs.shape and theirs.std() > 0.01, "a flat picture proves nothing"
    return psnr(actual, theirs)


@pytest.mark.parametrize("guidance_scale", (1.0, 4.0))
@pytest.mark.parametrize("name", NAMES)
def test_as_diffusers(name, guidance_scale, ours):
    """A wide picture, of another size than is asked for; the noise is torch's own on both sides."""
    size = checkpoints.SIZES[name][-1]
    given = embeds(name, 1), embeds(name, 1, 5)
    found = compare(ours, name, given, size, image=picture(30, 50), strength=0.5, guidance_scale=guidance_scale)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(sampler, ours):
    given = embeds("narrow", 1), embeds("narrow", 1, 5)
    found = compare(ours, "narrow", given, (16, 16), image=picture(16, 16), sampler=sampler, strength=0.35, guidance_scale=3.0)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


def test_two_pictures_and_two_of_each(ours):
    given = embeds("narrow", 2), embeds("narrow", 2, 5)
    found = compare(ours, "narrow", given, (16, 16), image=[picture(16, 16), picture(20, 20, 1)], strength=0.5,
                    guidance_scale=4.0, num_images_per_prompt=2)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", (0.3, 1.0))
@pytest.mark.parametrize("name", ("wide", "micro"))
def test_samplers_and_strengths(name, strength, sampler, ours):
    given = embeds(name, 1), embeds(name, 1, 5)
    found = compare(ours, name, given, checkpoints.SIZES[name][-1], image=picture(70, 50), sampler=sampler, strength=strength,
                    guidance_scale=4.0)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


@pytest.mark.parametrize("rows, images", ((2, 1), (1, 2)))
def test_one_serves_all(rows, images, ours, tape):
    """diffusers gives both the same noise, or stops; here they are the pictures that each makes alone."""
    pipeline, made = ours("narrow"), [picture(16, 16), picture(16, 16, 1)][:images]
    options = {"height": 16, "width": 16, "num_inference_steps": 6, "strength": 0.5, "output_type": "latent"}
    image_embeds, noise = embeds("narrow", rows), tape(2)
    together = pipeline(image_embeds, made, generator=noise, **options)[0]
    drawn = tape(2)
    draws = [drawn.standard_normal(shape) for shape in noise.shapes]
    assert not np.allclose(draws[0][0], draws[0][1]) and len(together) == 2
    for row in range(2):

        class Own:
            rest = iter([draw[row : row + 1] for draw in draws])

            def standard_normal(self, size):
                return next(self.rest)

        alone = pipeline(image_embeds[row % rows :][:1], made[row % images], generator=Own(), **options)[0]
        assert np.array_equal(alone[0], together[row])


def test_draws(ours, tape):
    """As many as diffusers: one to start with, and those of the steps that are run; neither LCM nor DDPM (at timestep 0) in the last."""
    for sampler, expected in (("checkpoint", 5), ("lcm", 5), ("dpmpp-2m", 1), ("ddim", 1), ("euler", 1)):
        pipeline, noise = ours("narrow"), tape()
        pipeline.scheduler = sampler
        pipeline(embeds("narrow", 1), picture(16, 16), height=16, width=16, num_inference_steps=10, strength=0.5, generator=noise)
        assert noise.shapes == [(1, 4, 8, 8)] * expected, sampler


def test_every_sampler_starts_in_the_middle(ours):
    """A second-order one at a step, not between its calls: its strength is a share of steps (diffusers: of calls)."""
    from kandinsky_mindir.runner.schedulers import SHORT_NAMES

    seen = {}
    for sampler in SHORT_NAMES:
        if sampler in ("unclip", "pndm") or sampler.endswith(("-karras", "-exponential")):
            continue  # UnCLIP is the prior's, and PNDM does not take what this checkpoint predicts
        pipeline, calls = ours("narrow"), []
        pipeline.scheduler = sampler
        pipeline(embeds("narrow", 1), picture(16, 16), height=16, width=16, num_inference_steps=6, strength=0.5, generator=1,
                 callback_on_step_end=lambda call, index, timestep, tensors, calls=calls: calls.append(index))
        assert calls == list(range(len(calls)))
        seen[sampler] = len(calls)
    assert seen.pop("heun") == 5 and set(seen.values()) == {3}


@pytest.mark.parametrize("steps, strength, skipped", ((25, 0.3, 18), (100, 0.29, 72), (10, 1, 0), (7, 1 / 7, 6)))
def test_strength(steps, strength, skipped):
    """int() cuts: 100 steps times 0.29 is 28."""
    assert skipped_steps(steps, strength) == skipped


def test_no_step(ours):
    with pytest.raises(UserError, match="strength 0.05 makes none of 10 steps: give at least 0.1"):
        ours("narrow")(embeds("narrow", 1), picture(16, 16), height=16, width=16, num_inference_steps=10, strength=0.05)
    for wrong in (0, -1, 1.5, float("nan"), "much"):
        with pytest.raises(UserError, match="strength is"):
            skipped_steps(10, wrong)


@pytest.mark.slow
def test_a_step_of_the_picture_is_near_it(ours):
    """Little strength gives the picture back, as far as the MoVQ can: what comes is near what it makes of its own latents."""
    pipeline, start = ours("micro"), picture(64, 64)
    far = pipeline(embeds("micro", 1), start, num_inference_steps=50, strength=1.0, generator=0, output_type="np")[0]
    near = pipeline(embeds("micro", 1), start, num_inference_steps=50, strength=0.02, generator=0, output_type="np")[0]
    wanted = np.asarray(start)[None] / 255
    assert psnr(near, wanted) > psnr(far, wanted) + 6


def test_combined_pairs_prompts_and_pictures(ours):
    """Each of two pictures belongs to its prompt, and to all pictures of it (diffusers gives them in turns)."""
    combined = ours("narrow", KandinskyV22Img2ImgCombinedPipeline)
    starts, size = [picture(16, 16), picture(16, 16, 1)], {"height": 16, "width": 16}
    options = {**size, "prior_num_inference_steps": 2, "num_inference_steps": 6, "strength": 0.5, "output_type": "np"}
    images = combined(["a cat", "a dog"], starts, num_images_per_prompt=2, generator=TorchGenerator(0), **options).images
    generator = TorchGenerator(0)
    found = combined.prior_pipe(["a cat", "a dog"], num_images_per_prompt=2, num_inference_steps=2, generator=generator)
    expected = ours("narrow")(*found.to_tuple()[:1], [starts[0], starts[0], starts[1], starts[1]], found[1], **size, strength=0.5,
                              num_inference_steps=6, generator=generator, output_type="np").images
    assert np.array_equal(images, expected)


def test_an_older_bundle_says_what_it_lacks(ours, monkeypatch):
    pipeline = ours("narrow")
    manifest = pipeline.bundle.manifest
    monkeypatch.setattr(type(manifest), "graphs", None, raising=False)
    graphs = tuple(graph for graph in manifest.graphs if graph.name != "movq_encoder")
    monkeypatch.setitem(vars(manifest), "graphs", graphs)
    with pytest.raises(UserError, match="this bundle has no movq_encoder: export it again with that part"):
        pipeline(embeds("narrow", 1), picture(16, 16), height=16, width=16, num_inference_steps=4)
