"""Schedules and steps of the C++ library are Python's, to the last bit, over all options of each sampler."""

import json
import math
from itertools import product

import numpy as np
import pytest
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.schedulers import SCHEDULERS, SHORT_NAMES
from scheduler_reference import KANDINSKY

SHAPE = (2, 4, 3, 5)
CLASSES = ("DDPMScheduler", "DDIMScheduler", "UnCLIPScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
           "EulerAncestralDiscreteScheduler")  # fmt: skip
NAMES = [name for name, (cls, _) in SHORT_NAMES.items() if cls.__name__ in CLASSES]
PRIOR = dict(_class_name="UnCLIPScheduler", clip_sample=True, clip_sample_range=5.0, num_train_timesteps=1000,
             prediction_type="sample", variance_type="fixed_small_log")  # fmt: skip
TRAINED = list(np.linspace(1e-4, 0.03, 1000) ** 1.5 * 10)


def compare(leaves, scheduler, name, config, steps, start=0):
    """Timesteps, first scale, every scaled input and every sample of a run, and a noised picture, bit for bit."""
    random = np.random.default_rng(1234)
    schedule = scheduler.schedule(steps)
    calls, channels = len(schedule.timesteps), SHAPE[1] * (1 + scheduler.learned_variance)
    sample = random.standard_normal(SHAPE).astype(np.float32) * np.float32(3)
    outputs = random.uniform(-1, 1, (calls, SHAPE[0], channels, *SHAPE[2:])).astype(np.float32)
    noises = random.standard_normal((calls, *SHAPE)).astype(np.float32)
    parts = (name, json.dumps(config), steps, SHAPE[0], SHAPE[1], SHAPE[2] * SHAPE[3], start, sample.tobytes(),
             outputs.tobytes(), noises.tobytes())
    expected, draws, state, noised = [], iter(noises), None, schedule.noised(sample, noises[0], start)
    try:
        for index in range(start, calls):
            expected.append(schedule.scale_model_input(sample, index))
            sample, state = schedule.step(outputs[index], index, sample, lambda: next(draws), state)
            assert sample.dtype == np.float32
            expected.append(sample)
    except ArithmeticError as failed:  # odd betas, rescaled, make noise levels that rise
        with pytest.raises(ArithmeticError, match=f"^{failed}$"):
            leaves.call("run", *parts)
        return
    timesteps, sigma, taken, *arrays = leaves.call("run", *parts)
    assert np.frombuffer(timesteps).tolist() == schedule.timesteps.tolist()
    assert np.frombuffer(sigma)[0] == float(schedule.init_noise_sigma)
    assert int(taken) == calls - len(list(draws))
    for number, (ours, theirs) in enumerate(zip(arrays, [*expected, noised], strict=True)):
        np.testing.assert_array_equal(np.frombuffer(ours, np.float32).reshape(SHAPE), theirs, err_msg=f"array {number}")


@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "unclip"), "checkpoint", "EulerDiscreteScheduler"])
def test_short_names_for_the_shipped_checkpoint(leaves, name):
    scheduler = schedulers.create_by_name(name, KANDINSKY)
    for steps in (1, 2, 3, 7, 25):
        compare(leaves, scheduler, name, KANDINSKY, steps)
    compare(leaves, scheduler, name, KANDINSKY, 10, start=4)
    described, learned = leaves.call("describe", name, json.dumps(KANDINSKY))
    assert json.loads(described) == schedulers.describe(scheduler)
    assert bool(learned) == scheduler.learned_variance


def test_the_prior_of_the_shipped_checkpoint(leaves):
    for steps in (1, 2, 10, 25, 1000):
        compare(leaves, schedulers.create(PRIOR), "", PRIOR, steps)


def options_of(cls):
    """Configurations that take every value of every option with choices at least once, and others in between."""
    values = {name: list(choices) for name, choices in cls.CHOICES.items()}
    values |= {name: [False, True] for name, value in cls.OPTIONS.items() if isinstance(value, bool) and name not in cls.REFUSED}
    extra = {"trained_betas": [None, TRAINED], "clip_sample_range": [0.7], "dynamic_thresholding_ratio": [0.8],
             "sample_max_value": [1.3], "steps_offset": [0, 1], "eta": [0.0, 0.6, 1], "s_churn": [0.0, 3.5], "s_noise": [1, 1.01],
             "s_tmin": [0.0, 0.3], "s_tmax": [50.0], "sigma_min": [None, 0.05], "sigma_max": [None, 30],
             "beta_start": [0.0001, 0.00085], "beta_end": [0.02, 0.012], "lambda_min_clipped": [-5.1],
             "num_train_timesteps": [1000, 400]}  # fmt: skip
    values |= {name: extra[name] for name in extra if name in cls.OPTIONS}
    random = np.random.default_rng(len(cls.OPTIONS))
    count = max(map(len, values.values()))
    for i in range(24 + count):
        config = {name: choices[(i if i < count else random.integers(99)) % len(choices)] for name, choices in values.items()}
        if config.get("trained_betas"):
            config["num_train_timesteps"] = 1000
        if not config.get("algorithm_type", "++").endswith("++"):
            config["final_sigmas_type"] = "sigma_min"
        if config.get("use_karras_sigmas") and config.get("use_exponential_sigmas"):
            config["use_exponential_sigmas"] = False
        yield {"_class_name": cls.__name__, **config}


@pytest.mark.parametrize("name", CLASSES)
def test_every_option(leaves, name):
    runs = 0
    for config, steps in product(options_of(SCHEDULERS[name]), (2, 13)):
        with np.errstate(all="ignore"):
            try:
                scheduler = schedulers.create(config)
                scheduler.schedule(steps)
            except UserError as refused:
                with pytest.raises(UserError) as ours:
                    leaves.call("run", "", json.dumps(config), steps, 1, 1, 1, 0, b"", b"", b"")
                assert str(ours.value) == str(refused)
                continue
            compare(leaves, scheduler, "", config, steps)
            runs += 1
    assert runs >= 30


BAD = [
    {}, {"_class_name": 3}, {"_class_name": "DPM"}, {"_class_name": "DDIMScheduler", "etaa": 1, "x": 2},
    *({"_class_name": "DDPMScheduler", **options} for options in (
        dict(beta_start=2), dict(beta_end="1"), dict(num_train_timesteps=0), dict(num_train_timesteps=2.5),
        dict(num_train_timesteps=2_000_000), dict(beta_schedule="cosine"), dict(beta_schedule=None), dict(clip_sample=1),
        dict(clip_sample_range=-1), dict(trained_betas=[]), dict(trained_betas=[0.1, "x"]), dict(trained_betas=[0.1, -0.2]),
        dict(steps_offset=-1), dict(sample_max_value=0.5), dict(thresholding=None), dict(beta_schedule=True),
        dict(rescale_betas_zero_snr=True, trained_betas=[0.0, 0.0]))),
    *({"_class_name": "DPMSolverMultistepScheduler", **options} for options in (
        dict(solver_order=4), dict(solver_order=2.0), dict(use_lu_lambdas=True), dict(use_beta_sigmas=True), dict(solver_order=True),
        dict(use_flow_sigmas=True), dict(algorithm_type="dpmsolver"), dict(use_karras_sigmas=True, use_exponential_sigmas=True),
        dict(lambda_min_clipped="x"), dict(flow_shift=[1]))),
    *({"_class_name": "EulerDiscreteScheduler", **options} for options in (
        dict(s_churn=-1), dict(sigma_min=0), dict(sigma_max="1"), dict(use_beta_sigmas=True), dict(s_noise=1e9))),
]


@pytest.mark.parametrize("config", BAD, ids=str)
def test_bad_configurations_are_refused_as_in_python(leaves, config):
    with np.errstate(all="ignore"), pytest.raises(UserError) as theirs:
        schedulers.create(config)
    with pytest.raises(UserError) as ours:
        leaves.call("describe", "", json.dumps(config))
    of_class = "scheduler class"
    if str(theirs.value).startswith(of_class):  # the lists of classes differ
        assert str(ours.value).startswith(str(theirs.value).partition(" is not known")[0] + " is not known to this program")
    else:
        assert str(ours.value) == str(theirs.value)


def test_options_of_other_samplers_are_left_out(leaves):
    everything = {name: value for cls in SCHEDULERS.values() for name, value in cls.OPTIONS.items()
                  if not isinstance(value, float) or math.isfinite(value)}  # fmt: skip
    for name in CLASSES:
        others = {option: value for option, value in everything.items() if option not in SCHEDULERS[name].OPTIONS}
        config = {**others, "_class_name": name, "_diffusers_version": "0.42.1", "_use_default_values": ["beta_end"], "beta_end": 3,
                  "algorithm_type": "data_prediction", "solver_type": "bh2"}  # fmt: skip
        described, _ = leaves.call("describe", "", json.dumps(config))
        assert json.loads(described) == schedulers.describe(schedulers.create(config))


@pytest.mark.parametrize("base", ["UniPCMultistepScheduler", "LCMScheduler", "SASolverScheduler", *CLASSES])
def test_options_carry_over_to_another_sampler(leaves, base):
    """All that a configuration of each class has, as diffusers would write it."""
    config = json.loads(json.dumps(schedulers.describe(schedulers.create({"_class_name": base}))))
    for name in NAMES:
        try:
            expected = schedulers.describe(schedulers.create_by_name(name, config))
        except UserError as refused:  # where several options are wrong, each program may name another
            with pytest.raises(UserError, match=f"^{str(refused).partition(':')[0]}: .* it must be one of "):
                leaves.call("describe", name, json.dumps(config))
        else:
            assert json.loads(leaves.call("describe", name, json.dumps(config))[0]) == expected


@pytest.mark.parametrize("name", ["unipc", "dpmpp-2s-karras", "ddim-karras", "", "DDIM"])
def test_an_unknown_name_is_refused(leaves, name):
    with pytest.raises(UserError, match="is not known to this program"):
        leaves.call("describe", name or "''", json.dumps(KANDINSKY))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_counts_of_steps_that_cannot_be(leaves, steps):
    with pytest.raises(UserError) as theirs:
        schedulers.create(KANDINSKY).schedule(steps)
    with pytest.raises(UserError) as ours:
        leaves.call("run", "", json.dumps(KANDINSKY), steps, 1, 1, 1, 0, b"", b"", b"")
    assert str(ours.value) == str(theirs.value)
