"""Whole pipelines on Lite against diffusers on torch: same latents, same noise, same picture."""

import checkpoints
import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from psnr import LEAST_PSNR, picture, psnr

NAMES = ("micro", "narrow", pytest.param("wide", marks=pytest.mark.slow))  # narrow and wide have random weights
STEPS = {"prior_num_inference_steps": 5, "num_inference_steps": 8}


@pytest.fixture(scope="module")
def ours(bundles):
    opened = {}

    def pipeline(name):
        if name not in opened:
            opened[name] = KandinskyV22CombinedPipeline.from_pretrained(bundles(name))
            opened[name].set_progress_bar_config(disable=True)
            opened[name].scheduler = "checkpoint"  # as diffusers does
        return opened[name]

    return pipeline


@pytest.mark.parametrize("guidance_scale", (1.0, 4.0))
@pytest.mark.parametrize("negative_prompt", (None, ["a dog", "blue"]), ids=("plain", "negative"))
@pytest.mark.parametrize("name", NAMES)
def test_text_to_image(name, negative_prompt, guidance_scale, ours, tape, reference_noise, record_property):
    prompts, (height, width) = ["a cat", "a red heart"], checkpoints.SIZES[name][-1]
    prior, decoder = checkpoints.pipelines(name)
    expected_tape, actual_tape = tape(), tape()
    reference_noise(expected_tape)
    embeds = prior(prompts, negative_prompt=negative_prompt, num_inference_steps=5, guidance_scale=guidance_scale)
    expected = decoder(*embeds.to_tuple(), height=height, width=width, num_inference_steps=8,
                       guidance_scale=guidance_scale, output_type="np").images
    actual = ours(name)(
        prompts, negative_prompt=negative_prompt, height=height, width=width, guidance_scale=guidance_scale,
        prior_guidance_scale=guidance_scale, generator=actual_tape, output_type="np", **STEPS,
    ).images
    assert actual_tape.shapes == expected_tape.shapes
    assert actual.shape == (2, height, width, 3) and actual.dtype == np.float32
    found = psnr(actual, expected)
    record_property("psnr", float(found))
    assert expected.std() > 0.01, "a flat picture proves nothing"
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


@pytest.mark.parametrize("negatives", ({}, {"negative_prompt": "a fish"}, {"negative_prior_prompt": "a bird"}),
                         ids=("plain", "negative", "prior-negative"))
@pytest.mark.parametrize("name", NAMES)
def test_interpolation(name, negatives, ours, tape, reference_noise, record_property):
    items, weights = ["a cat", picture(), "a dog"], [0.3, 0.3, 0.4]
    height, width = checkpoints.SIZES[name][-1]
    prior, decoder = checkpoints.pipelines(name)
    expected_tape, actual_tape = tape(1), tape(1)
    reference_noise(expected_tape)
    embeds = prior.interpolate(items, weights, num_images_per_prompt=2, num_inference_steps=4, **negatives)
    expected = decoder(*embeds.to_tuple(), height=height, width=width, num_inference_steps=8, output_type="np").images

    pipeline = ours(name)
    embeds = pipeline.prior_pipe.interpolate(items, weights, num_images_per_prompt=2, num_inference_steps=4,
                                             guidance_scale=4.0, generator=actual_tape, **negatives)
    actual = pipeline.decoder_pipe(*embeds, height=height, width=width, num_inference_steps=8, guidance_scale=4.0,
                                   generator=actual_tape, output_type="np").images
    assert actual_tape.shapes == expected_tape.shapes
    found = psnr(actual, expected)
    record_property("psnr", float(found))
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


def test_latents_replace_the_first_draw(ours, tape):
    pipeline, shape = ours("narrow"), (1, 32)
    drawn = tape(3)
    first = drawn.standard_normal(shape).astype(np.float32)
    options = {"num_inference_steps": 3}
    expected = pipeline.prior_pipe("a cat", generator=tape(3), **options)[0]
    assert np.array_equal(pipeline.prior_pipe("a cat", latents=first, generator=drawn, **options)[0], expected)


def test_a_picture_alone_equals_the_same_picture_in_a_batch(ours, tape):
    """Rows run one after another on the same graphs, so not a bit may differ."""
    decoder = ours("narrow").decoder_pipe
    rng = np.random.default_rng(0)
    embeds = rng.standard_normal((3, 32)).astype(np.float32)
    latents = rng.standard_normal((3, 4, 8, 8)).astype(np.float32)

    class Row:
        """The noise of one picture of the batch."""

        def __init__(self, row):
            self.tape, self.row = tape(5), row

        def standard_normal(self, size):
            return self.tape.standard_normal((3, *size[1:]))[self.row : self.row + 1]

    options = {"num_inference_steps": 3, "height": 16, "width": 16, "output_type": "latent"}
    together = decoder(embeds, latents=latents, generator=tape(5), **options)[0]
    for row in range(3):
        alone = decoder(embeds[row : row + 1], latents=latents[row : row + 1], generator=Row(row), **options)[0]
        assert np.array_equal(alone[0], together[row])


def test_outputs_answer_to_names_and_positions(ours):
    output = ours("narrow")("a cat", generator=0, height=16, width=16, **STEPS)
    assert output[0][0] is output.images[0] is output["images"][0]
    assert output.images[0].size == (16, 16) and output.images[0].mode == "RGB"
    (images,) = ours("narrow")("a cat", generator=0, height=16, width=16, return_dict=False, **STEPS)
    assert images[0].tobytes() == output.images[0].tobytes()
    image_embeds, negative_image_embeds = ours("narrow").prior_pipe("a cat", generator=0, num_inference_steps=2)
    assert image_embeds.shape == negative_image_embeds.shape == (1, 32)


def test_callback_sees_and_replaces_latents(ours):
    decoder, seen = ours("narrow").decoder_pipe, []

    def callback(pipeline, index, timestep, tensors):
        assert pipeline.bundle is decoder.bundle and pipeline.num_timesteps == 3
        seen.append((index, int(timestep), sorted(tensors)))
        return {"latents": tensors["latents"] * 0}

    latents = decoder(np.ones((1, 32), np.float32), height=16, width=16, num_inference_steps=3, generator=0,
                      output_type="latent", callback_on_step_end=callback,
                      callback_on_step_end_tensor_inputs=["latents", "image_embeds"])[0]
    assert [index for index, *_ in seen] == [0, 1, 2] and seen[0][2] == ["image_embeds", "latents"]
    assert [timestep for _, timestep, _ in seen] == sorted((t for _, t, _ in seen), reverse=True)
    assert not latents.any()


def test_sides_are_rounded_up_as_in_the_reference(ours):
    images = ours("narrow").decoder_pipe(np.ones((1, 32), np.float32), height=13, width=15, num_inference_steps=1,
                                         generator=0, output_type="np")[0]
    assert images.shape == (1, 16, 16, 3)
