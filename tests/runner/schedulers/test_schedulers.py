"""DDPM, DDIM and UnCLIP against diffusers, over all their options.

Schedule constants are float32 to the bit, and a step is the same few float32 operations in the same order. torch's own
square roots, exponentials and logarithms are not right to the last bit, and are made so in the reference; what is left
to differ is a quantile's last bit (6e-8), which a trajectory carries along. tests/programs/samplers_table.py shows diffusers
as it is: a bit in a root makes up to 1.2e-6 of a hundred steps.
"""

from itertools import product

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError
from scheduler_reference import SHAPE, rounded_correctly, worst_error

TOLERANCE = 1e-6
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SPACINGS = ("linspace", "leading", "trailing")
TRAINED = list(np.linspace(1e-4, 0.03, 1000) ** 1.5 * 10)
BETAS = [
    dict(beta_schedule="linear"),
    dict(beta_schedule="linear", beta_start=0.00085, beta_end=0.012),
    dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    dict(beta_schedule="squaredcos_cap_v2"),
    dict(trained_betas=TRAINED),
]
DDPM_BETAS = BETAS + [dict(beta_schedule="sigmoid"), dict(beta_schedule="laplace")]
CLIPPING = [
    dict(clip_sample=False),
    dict(clip_sample=True, clip_sample_range=0.7),
    dict(thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1.3),
    dict(thresholding=True),
]
# fixed_large_log is not here: diffusers gives NaN for it (test_fixed_large_log).
VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range")


@pytest.fixture(autouse=True)
def torch_rounded_correctly():
    with rounded_correctly():
        yield


@pytest.mark.parametrize("options", DDPM_BETAS, ids=str)
@pytest.mark.parametrize("rescale", [False, True])
def test_schedule_constants_equal_diffusers(options, rescale):
    ours = schedulers.DDPMScheduler(**options, rescale_betas_zero_snr=rescale)
    theirs = diffusers.DDPMScheduler(**options, rescale_betas_zero_snr=rescale)
    if options.get("beta_schedule") == "sigmoid":
        # The last bit of torch's vectorized sigmoid is its own: 6e-8 of a beta of at most 0.02, a thousand times.
        # Rescaling subtracts the last root from all, and the betas are rounded to 6e-8 of 1 before they are multiplied.
        np.testing.assert_allclose(
            np.sqrt(ours.alphas_cumprod), theirs.alphas_cumprod.sqrt().numpy(), rtol=1.2e-6, atol=2.4e-7 * rescale
        )
    else:
        assert np.array_equal(ours.betas, theirs.betas.numpy())
        assert np.array_equal(ours.alphas_cumprod, theirs.alphas_cumprod.numpy())


def outputs_of_every_kind(betas):
    """Options that pair each way of clipping with each beta schedule, without their whole product."""
    count = max(len(CLIPPING), len(betas))
    return [{**CLIPPING[i % len(CLIPPING)], **betas[i % len(betas)]} for i in range(count)]


@pytest.mark.parametrize("variance, prediction, spacing", list(product(VARIANCES, PREDICTIONS, SPACINGS)))
def test_ddpm(variance, prediction, spacing):
    for options in outputs_of_every_kind(DDPM_BETAS):
        options = dict(variance_type=variance, prediction_type=prediction, timestep_spacing=spacing, **options)
        for steps in (1, 2, 13):
            assert worst_error("DDPMScheduler", options, steps) <= TOLERANCE


@pytest.mark.parametrize("prediction, spacing, final", list(product(PREDICTIONS, SPACINGS, (True, False))))
def test_ddim(prediction, spacing, final):
    for options in outputs_of_every_kind(BETAS):
        options = dict(prediction_type=prediction, timestep_spacing=spacing, set_alpha_to_one=final, **options)
        for steps, eta, clipped in ((1, 0.0, False), (2, 0.0, True), (13, 0.7, False), (13, 1.0, True)):
            error = worst_error("DDIMScheduler", options, steps, eta=eta, use_clipped_model_output=clipped)
            assert error <= TOLERANCE


@pytest.mark.parametrize("variance", ["fixed_small_log", "learned_range"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("clipping", [dict(clip_sample=False), dict(clip_sample_range=5.0), dict()], ids=str)
def test_unclip(variance, prediction, clipping):
    for train in (1000, 130):
        options = dict(variance_type=variance, prediction_type=prediction, num_train_timesteps=train, **clipping)
        for steps in (2, 3, 25, 100, 130):
            assert worst_error("UnCLIPScheduler", options, steps) <= TOLERANCE


# sigmoid is not here: its last bit is torch's own, and a zero terminal SNR makes much of it.
SMOOTH = [name for name in schedulers.DDPMScheduler.CHOICES["beta_schedule"] if name != "sigmoid"]
COMMON = dict(
    num_train_timesteps=st.integers(100, 1200),
    beta_start=st.floats(1e-5, 1e-3),
    beta_end=st.floats(0.005, 0.03),
    clip_sample=st.booleans(),
    clip_sample_range=st.floats(0.1, 5),
    thresholding=st.booleans(),
    dynamic_thresholding_ratio=st.floats(0.5, 1),
    sample_max_value=st.floats(1, 3),
)
# What the two families share with a zero terminal SNR: no epsilon at the last timestep (test_zero_snr_refuses).
NOISY = st.fixed_dictionaries(dict(prediction_type=st.sampled_from(PREDICTIONS), rescale_betas_zero_snr=st.just(False)))
ZERO_SNR = st.fixed_dictionaries(
    dict(prediction_type=st.sampled_from(PREDICTIONS[1:]), rescale_betas_zero_snr=st.just(True))
)
PLACES = st.one_of(
    st.fixed_dictionaries(dict(timestep_spacing=st.sampled_from(["linspace", "trailing"]))),
    st.fixed_dictionaries(dict(timestep_spacing=st.just("leading"), steps_offset=st.integers(0, 1))),
)
MANY = settings(max_examples=60, deadline=None, derandomize=True)


@MANY
@given(
    st.fixed_dictionaries(
        dict(
            **COMMON,
            variance_type=st.sampled_from(VARIANCES),
            beta_schedule=st.sampled_from(SMOOTH),
        )
    ),
    st.one_of(NOISY, ZERO_SNR), PLACES, st.integers(1, 99), st.integers(0, 98),
)  # fmt: skip
def test_ddpm_any_options(options, prediction, places, steps, start):
    error = worst_error("DDPMScheduler", {**options, **prediction, **places}, steps, start=min(start, steps - 1))
    assert error <= TOLERANCE


@MANY
@given(
    st.fixed_dictionaries(
        dict(
            **COMMON,
            set_alpha_to_one=st.booleans(),
            beta_schedule=st.sampled_from(schedulers.DDIMScheduler.CHOICES["beta_schedule"]),
        )
    ),
    st.one_of(NOISY, ZERO_SNR), PLACES, st.integers(1, 99), st.integers(0, 98), st.floats(0, 1), st.booleans(),
)  # fmt: skip
def test_ddim_any_options(options, prediction, places, steps, start, eta, clipped):
    error = worst_error(
        "DDIMScheduler", {**options, **prediction, **places}, steps, start=min(start, steps - 1), eta=eta,
        use_clipped_model_output=clipped,
    )  # fmt: skip
    assert error <= TOLERANCE


def test_fixed_large_log_is_fixed_large():
    """Both are one variance, beta; diffusers takes the square root of its logarithm and gives NaN."""
    output, sample, noise = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    steps = [
        schedulers.DDPMScheduler(variance_type=variance).schedule(10).step(output, 3, sample, lambda: noise)[0]
        for variance in ("fixed_large", "fixed_large_log")
    ]
    assert np.array_equal(*steps) and np.all(np.isfinite(steps[0]))
    theirs = diffusers.DDPMScheduler(variance_type="fixed_large_log")
    theirs.set_timesteps(10)
    broken = theirs.step(torch.from_numpy(output), theirs.timesteps[3], torch.from_numpy(sample)).prev_sample
    assert torch.isnan(broken).all()


def test_unclip_in_one_step_is_the_predicted_picture():
    output, sample = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    schedule = schedulers.UnCLIPScheduler(prediction_type="sample", clip_sample=False).schedule(1)
    assert list(schedule.timesteps) == [999]
    picture, _ = schedule.step(output, 0, sample, pytest.fail)
    # At the end of the process nothing is kept of the sample, and the picture's weight is 1 to a rounding or two.
    np.testing.assert_allclose(picture, output, rtol=2.4e-7, atol=0)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_add_noise(name):
    original, noise = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    ours = schedulers.SCHEDULERS[name]().schedule(10)
    for timestep in (0, 1, 500, 999):
        theirs = getattr(diffusers, name)().add_noise(
            torch.from_numpy(original), torch.from_numpy(noise), torch.tensor([timestep])
        )
        # Two square roots, two products and a sum, of magnitude 3 at most: a rounding of each.
        np.testing.assert_allclose(ours.add_noise(original, noise, timestep), theirs.numpy(), rtol=0, atol=6e-7)


def test_steps_and_schedules_are_pure():
    output, sample, noise = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    kept = output.copy(), sample.copy(), noise.copy()
    for cls in schedulers.SCHEDULERS.values():
        scheduler = cls()
        schedule = scheduler.schedule(7)
        with pytest.raises(ValueError):
            schedule.timesteps[0] = 1
        with pytest.raises(AttributeError):
            schedule.timesteps = None
        with pytest.raises(UserError, match="does not change"):
            scheduler.config["num_train_timesteps"] = 1
        first, state = schedule.step(output, 2, sample, lambda: noise)
        schedule.step(output, 3, first, lambda: noise, state)
        again, _ = schedule.step(output, 2, sample, lambda: noise)
        assert np.array_equal(first, again) and first.dtype == np.float32
    assert all(np.array_equal(x, y) for x, y in zip(kept, (output, sample, noise)))


@pytest.mark.parametrize(
    "config, words",
    [
        (dict(_class_name="KarrasVeScheduler"), "KarrasVeScheduler"),
        (dict(), "None"),
        (dict(_class_name="DDPMScheduler", beta_shedule="linear"), "no option beta_shedule"),
        (dict(_class_name="DDPMScheduler", beta_schedule="cubic"), "beta_schedule is 'cubic'"),
        (dict(_class_name="DDPMScheduler", variance_type="guessed"), "variance_type is 'guessed'"),
        (dict(_class_name="DDIMScheduler", clip_sample=1), "clip_sample is 1"),
        (dict(_class_name="DDIMScheduler", eta="a lot"), "eta is 'a lot'"),
        (dict(_class_name="DDPMScheduler", num_train_timesteps=0), "num_train_timesteps is 0"),
        (dict(_class_name="DDPMScheduler", num_train_timesteps=1e3), "num_train_timesteps is 1000.0"),
        (dict(_class_name="DDPMScheduler", trained_betas=[0.1, float("nan")]), "trained_betas"),
        (dict(_class_name="DDPMScheduler", trained_betas=[-0.1, 0.1]), "betas run from -0.1"),
        (dict(_class_name="UnCLIPScheduler", beta_schedule="linear"), "squaredcos_cap_v2"),
        (dict(_class_name="UnCLIPScheduler", prediction_type="v_prediction"), "v_prediction"),
    ],
    ids=str,
)
def test_bad_options_are_named(config, words):
    with pytest.raises(UserError, match=words):
        schedulers.create(config)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, "ten", True, None])
def test_bad_numbers_of_steps_are_named(steps):
    for cls in schedulers.SCHEDULERS.values():
        with pytest.raises(UserError, match=f"num_inference_steps is {steps!r}"):
            cls().schedule(steps)


def test_timesteps_beyond_training_are_refused():
    with pytest.raises(UserError, match="steps_offset"):
        schedulers.DDPMScheduler(steps_offset=1).schedule(1000)
    with pytest.raises(UserError, match="the model was trained on 0 to 9"):
        schedulers.DDPMScheduler(trained_betas=[0.01] * 10).schedule(4)


def test_zero_snr_refuses_a_predicted_noise():
    options = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(UserError, match="v_prediction"):
        schedulers.DDPMScheduler(**options).schedule(10)
    schedulers.DDPMScheduler(**options, prediction_type="v_prediction").schedule(10)
    schedulers.DDPMScheduler(rescale_betas_zero_snr=True).schedule(10)  # leading: starts below the last timestep


def test_variance_half_missing_is_refused():
    schedule = schedulers.DDPMScheduler(variance_type="learned_range").schedule(10)
    with pytest.raises(UserError, match="4 channels"):
        schedule.step(np.zeros(SHAPE, np.float32), 0, np.zeros(SHAPE, np.float32), None)


def test_checkpoint_options_carry_over_by_name():
    checkpoint = dict(
        _class_name="DDPMScheduler", _diffusers_version="0.42.1", beta_start=0.00085, beta_end=0.012,
        variance_type="learned_range", clip_sample=False,
    )  # fmt: skip
    own = schedulers.create(checkpoint)
    assert own.learned_variance and own.config["beta_end"] == 0.012
    other = schedulers.create_by_name("ddim", checkpoint)
    assert type(other) is schedulers.DDIMScheduler and not other.learned_variance
    assert np.array_equal(other.betas, own.betas) and other.config["clip_sample"] is False
    assert type(schedulers.create_by_name("DDPMScheduler", checkpoint)) is schedulers.DDPMScheduler
    with pytest.raises(UserError, match="choose one of .*ddpm"):
        schedulers.create_by_name("ddmp", checkpoint)


def test_from_config_of_another_class():
    """A sampler takes over what another's configuration says, as in diffusers: betas above all."""
    config = schedulers.DDPMScheduler(beta_end=0.012, variance_type="learned_range", steps_offset=1).config
    scheduler = schedulers.DDIMScheduler.from_config(config)
    assert scheduler.config["beta_end"] == 0.012 and scheduler.config["steps_offset"] == 1
    assert "variance_type" not in scheduler.config
    with pytest.raises(UserError, match="no_such_option"):
        schedulers.DDIMScheduler.from_config({**config, "no_such_option": 1})
