"""Guidance: its formulas against the reference's, its interval, and that neither option costs a bit when off."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from kandinsky_mindir.runner import KandinskyV22Pipeline, UserError
from kandinsky_mindir.runner.diffusion.guidance import Guidance
from numpy.testing import assert_allclose

STEPS = 4
SCALE = 4.0


@pytest.fixture
def predictions():
    return np.random.default_rng(0).standard_normal((2, 3, 4, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("rescale", (0.0, 0.3, 0.7, 1.0))
def test_equals_the_reference(rescale, predictions):
    unconditional, conditional = torch.from_numpy(predictions)
    guided = unconditional + SCALE * (conditional - unconditional)
    expected = rescale_noise_cfg(guided, conditional, guidance_rescale=rescale) if rescale else guided
    # Three roundings on each side, and the reference's standard deviation in float32.
    assert_allclose(Guidance(SCALE, rescale).combine(*predictions), expected.numpy(), rtol=2e-6, atol=1e-6)


def test_fully_rescaled_has_the_spread_of_the_conditional_prediction(predictions):
    found = Guidance(SCALE, 1.0).combine(*predictions).std(axis=(1, 2, 3), dtype=np.float64)
    assert_allclose(found, predictions[1].std(axis=(1, 2, 3), dtype=np.float64), rtol=1e-6)  # float32 has 6e-8


def test_a_flat_prediction_has_no_spread_to_rescale():
    flat = np.ones((1, 4, 8, 8), np.float32)
    assert np.array_equal(Guidance(SCALE, 1.0).combine(flat, flat), flat)


def test_interval():
    assert [i for i in range(10) if Guidance(SCALE, interval=(0.2, 0.7)).is_on(i, 10)] == [2, 3, 4, 5, 6]
    assert not any(Guidance(1.0).is_on(i, 10) for i in range(10)), "a scale of 1 does not guide"


@pytest.mark.parametrize("cut", (0.1, 0.25, 0.3, 1 / 3, 0.7, 0.9))
def test_two_halves_of_the_run_guide_every_step_once(cut):
    first, second = Guidance(SCALE, interval=(0.0, cut)), Guidance(SCALE, interval=(cut, 1.0))
    for count in range(1, 101):
        assert all(first.is_on(i, count) != second.is_on(i, count) for i in range(count))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_rescale": 1.5}, "guidance_rescale is 1.5"),
        ({"guidance_rescale": "0.5"}, "guidance_rescale is '0.5'"),
        ({"guidance_interval": 0.5}, "guidance_interval is 0.5"),
        ({"guidance_interval": (0.0, 0.5, 1.0)}, "guidance_interval is (0.0, 0.5, 1.0)"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval is (0.7, 0.2)"),
        ({"guidance_interval": (0.5, 0.5)}, "guidance_interval is (0.5, 0.5)"),
        ({"guidance_interval": (0.0, 50)}, "guidance_interval is (0, 50)"),
        ({"guidance_interval": (0.0, None)}, "an end of guidance_interval is None"),
    ],
)
def test_bad_options(options, message, decoder):
    with pytest.raises(UserError) as error:
        decoder(np.zeros((1, 32), np.float32), **options)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def decoder(bundles):
    pipeline = KandinskyV22Pipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = "checkpoint"  # DDPM, which remembers nothing of earlier steps
    return pipeline


@pytest.fixture
def trajectory(decoder):
    """A function that runs the decoder and returns its latents after each step; `replace` (index, latents) puts others
    in their place."""

    def run(replace=(None, None), **options):
        latents = []

        def callback(pipeline, index, timestep, tensors):
            latents.append(tensors["latents"])
            return {"latents": replace[1]} if index == replace[0] else {}

        embeds = np.random.default_rng(1).standard_normal((2, 32)).astype(np.float32)
        decoder(embeds, height=16, width=16, num_inference_steps=STEPS, generator=0, output_type="latent",
                callback_on_step_end=callback, **options)
        return latents

    return run


def same(actual, expected):
    return len(actual) == len(expected) and all(map(np.array_equal, actual, expected))


@pytest.fixture
def loads(decoder, monkeypatch):
    """The batches that the UNet was loaded for, in order; two at a time are an error."""
    lease, batches, open_now = decoder.models._lease, [], []

    @contextmanager
    def recorded(size, name, batch, keepers=()):
        if name != "unet":
            with lease(size, name, batch, keepers) as run:
                yield run
            return
        assert not open_now, "both graphs of the UNet are in use at once"
        batches.append(batch)
        open_now.append(batch)
        with lease(size, name, batch, keepers) as run:
            yield run
        open_now.pop()

    monkeypatch.setattr(decoder.models, "_lease", recorded)
    return batches


def test_off_is_exact(trajectory, loads):
    expected = trajectory(guidance_scale=SCALE)
    assert same(trajectory(guidance_scale=SCALE, guidance_rescale=0.0, guidance_interval=(0, 1)), expected)
    assert loads == [2, 2]
    assert not same(trajectory(guidance_scale=SCALE, guidance_rescale=0.7), expected)


def test_outside_the_interval_the_conditional_half_runs_alone(trajectory, loads):
    """The steps inside are those of a run with guidance, the steps outside those of a run without, to the last bit."""
    guided, plain = trajectory(guidance_scale=SCALE), trajectory(guidance_scale=1.0)
    loads.clear()
    first = trajectory(guidance_scale=SCALE, guidance_interval=(0.0, 0.5))
    assert loads == [2, 1]
    assert same(first[:2], guided[:2])
    assert same(first[2:], trajectory(guidance_scale=1.0, replace=(1, guided[1]))[2:])
    loads.clear()
    middle = trajectory(guidance_scale=SCALE, guidance_interval=(0.25, 0.75))
    assert loads == [1, 2, 1]
    assert same(middle[:1], plain[:1]) and not np.array_equal(middle[1], plain[1])
