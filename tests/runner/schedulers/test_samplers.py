"""The samplers of diffusion's later years against diffusers, over their options and 1 to 100 steps.

The reference is diffusers' own class, with its noise levels and samples in float64: in float32 its coefficients, small
differences of exponentials, are off by up to 1e-3 of a trajectory (samplers_table.py shows both). What is left is
this project's float32 arithmetic of samples: a rounding (6e-8) for each of some six operations a step, of which a
hundred steps add up like a random walk, and the float32 constants of samplers without noise levels; 1e-5 is the
project's promise, and holds ten times over.
"""

import json
import math

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError
from scheduler_reference import KANDINSKY, SHAPE, Case, Noises, rounded_correctly, trajectory, worst_error

TOLERANCE = 1e-5
ELSEWHERE = ("DDPMScheduler", "DDIMScheduler", "UnCLIPScheduler")  # tests/runner/schedulers/test_schedulers.py
GRIDS = ("use_karras_sigmas", "use_exponential_sigmas")
SAMPLERS = [name for name in schedulers.SCHEDULERS if name not in ELSEWHERE]
DEFAULTS = dict(
    LCMScheduler=dict(original_inference_steps=100), TCDScheduler=dict(original_inference_steps=100)
)  # fmt: skip
NUMBERS = dict(
    num_train_timesteps=st.just(1000),
    beta_start=st.floats(1e-4, 1e-3),
    beta_end=st.floats(0.01, 0.02),
    dynamic_thresholding_ratio=st.floats(0.5, 1),
    sample_max_value=st.floats(1, 3),
    clip_sample_range=st.floats(0.5, 5),
    steps_offset=st.integers(0, 1),
    lambda_min_clipped=st.sampled_from([-math.inf, -5.1, -3.0]),
    original_inference_steps=st.just(100),
    timestep_scaling=st.floats(1, 20),
    disable_corrector=st.lists(st.integers(0, 3), max_size=2),
    sigma_min=st.none() | st.floats(0.01, 0.1),
    sigma_max=st.none() | st.floats(8, 20),
)
STEP_OPTIONS = dict(
    TCDScheduler=dict(eta=st.floats(0, 1)),
    EulerDiscreteScheduler=dict(
        s_churn=st.sampled_from([0.0, 10.0]),
        s_tmin=st.floats(0, 1),
        s_tmax=st.floats(5, 50),
        s_noise=st.floats(0.9, 1.1),
    ),
)


def options_of(name):
    """A strategy for the options of a sampler, from its own tables."""
    cls = schedulers.SCHEDULERS[name]
    fields = {}
    for option, default in cls.OPTIONS.items():
        if option in cls.REFUSED or option in STEP_OPTIONS.get(name, {}) or option == "trained_betas":
            continue
        if option in cls.CHOICES:
            fields[option] = st.sampled_from(cls.CHOICES[option])
        elif isinstance(default, bool) and option not in GRIDS:
            fields[option] = st.booleans()
        elif option in NUMBERS:
            fields[option] = NUMBERS[option]
    grids = [{}] + [{grid: True} for grid in GRIDS if grid in cls.OPTIONS]
    return st.builds(lambda options, grid: {**options, **grid}, st.fixed_dictionaries(fields), st.sampled_from(grids))


def diffusers_cannot(name, options):
    """Whether diffusers gives no reference for these options, for a reason shown in test_samplers_defects.py."""
    order, algorithm, solver = (options.get(key) for key in ("solver_order", "algorithm_type", "solver_type"))
    thresholding, final = options.get("thresholding"), options.get("final_sigmas_type")
    if name == "DPMSolverMultistepScheduler":
        stays = final == "sigma_min" and any(options.get(grid) for grid in GRIDS)
        return (stays and (order == 3 or solver == "heun")) or (order == 3 and algorithm.startswith("sde"))
    if name == "DPMSolverSinglestepScheduler":
        return (thresholding and algorithm == "dpmsolver") or (order == 3 and algorithm.startswith("sde"))
    if name == "UniPCMultistepScheduler":
        special = final == "zero" or any(options.get(grid) for grid in GRIDS)  # the last step is infinite, or nothing
        fails = (special and not options["lower_order_final"]) or (final == "zero" and solver == "bh1")
        return fails or (thresholding and not options["predict_x0"])
    if name == "SASolverScheduler":
        return thresholding and algorithm == "noise_prediction"
    return name == "EulerAncestralDiscreteScheduler" and options["prediction_type"] == "sample"


@pytest.fixture(autouse=True)
def torch_rounded_correctly():
    """So that noise levels, and the timesteps found by them, are this project's to the bit."""
    with rounded_correctly():
        yield


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_options_any_steps_from_any_start(name):
    @settings(
        max_examples=25, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )  # fmt: skip
    @given(
        options_of(name), st.fixed_dictionaries(STEP_OPTIONS.get(name, {})), st.integers(1, 100),
        st.just(0) | st.integers(0, 99),
    )  # fmt: skip
    def check(options, step_options, steps, start):
        assume(not diffusers_cannot(name, options))
        try:
            schedulers.SCHEDULERS[name](**options).schedule(steps)
        except UserError:
            reject()
        start = 0 if name == "PNDMScheduler" else min(start, steps - 1)
        if name == "HeunDiscreteScheduler":
            start *= 2
        assert worst_error(name, options, steps, start, torch.float64, **step_options) <= TOLERANCE

    check()


@pytest.mark.parametrize("name", SAMPLERS)
def test_kandinskys_options(name):
    options = {**KANDINSKY, **DEFAULTS.get(name, {})}
    known = set(schedulers.SCHEDULERS[name].OPTIONS) - {"variance_type"}  # diffusers cuts 4 channels to 3 for it
    options = {key: value for key, value in options.items() if key in known}
    for steps in [*range(4 if name == "PNDMScheduler" else 1, 17), 25, 50, 61, 100]:
        assert worst_error(name, options, steps, dtype=torch.float64) <= TOLERANCE
    if "trailing" in schedulers.SCHEDULERS[name].CHOICES.get("timestep_spacing", ()):
        options = {**options, "timestep_spacing": "trailing"}
        assert worst_error(name, options, 61, dtype=torch.float64) <= TOLERANCE  # where diffusers has one step too many


def two_arrays():
    return np.random.default_rng(3).standard_normal((2, *SHAPE))


@pytest.mark.parametrize("name", [name for name in schedulers.SHORT_NAMES if name != "unclip"])
def test_short_names_run_on_kandinskys_checkpoint(name):
    scheduler = schedulers.create_by_name(name, KANDINSKY)
    assert scheduler.config["beta_end"] == KANDINSKY["beta_end"]
    case = Case(variance="learned_range" if scheduler.learned_variance else None)
    for grid in ("karras", "exponential"):
        if name.endswith(grid):
            assert scheduler.config[f"use_{grid}_sigmas"]
    samples = trajectory(scheduler.schedule(6), case, Noises())[1]
    assert np.all(np.isfinite(samples[-1])) and samples[-1].dtype == np.float32


@pytest.mark.parametrize("saved", (False, True), ids=("live", "saved"))
@pytest.mark.parametrize("source", schedulers.SCHEDULERS)
def test_from_config_of_every_other_class(source, saved):
    """Options come out as in diffusers, from a live object's configuration (which says what nobody chose) and from
    the JSON that it is saved as."""
    own = getattr(diffusers, source)(num_train_timesteps=500)
    config = json.loads(own.to_json_string()) if saved else own.config
    for name, cls in schedulers.SCHEDULERS.items():
        if saved and "UnCLIPScheduler" in (source, name):
            continue  # the prior's: its betas and variance are no decoder's, and are refused as such
        try:
            theirs = getattr(diffusers, name).from_config(config).config
        except (NotImplementedError, ValueError):  # of a kind of solver that it does not translate: ours takes its own
            assert saved and cls.from_config(config).config["num_train_timesteps"] == 500
            continue
        if saved and name == "DDPMScheduler" and theirs.variance_type is None:
            with pytest.raises(UserError, match="variance_type is None"):
                cls.from_config(config)
            continue
        ours = cls.from_config(config).config
        for option in set(ours) & set(theirs) - {"disable_corrector"}:  # an empty tuple here, an empty list there
            assert ours[option] == theirs[option], (name, option)
        assert ours["num_train_timesteps"] == 500


def test_an_unknown_option_is_no_other_classs():
    with pytest.raises(UserError, match="no_such_option"):
        schedulers.DDIMScheduler.from_config({**KANDINSKY, "no_such_option": 1})
    with pytest.raises(UserError, match="solver_type is 'rk4'"):
        schedulers.UniPCMultistepScheduler.from_config(dict(solver_type="rk4"))


@pytest.mark.parametrize("base", [name for name in schedulers.SCHEDULERS if name != "UnCLIPScheduler"])
def test_a_short_name_on_any_checkpoint(base):
    """Whatever sampler a checkpoint was saved with, another one takes over what has a meaning for it."""
    config = json.loads(getattr(diffusers, base)(num_train_timesteps=500).to_json_string())
    for name in schedulers.SHORT_NAMES:
        if name != "unclip":
            assert schedulers.create_by_name(name, config).config["num_train_timesteps"] == 500
    assert schedulers.create_by_name("checkpoint", config).name == base


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("DPMSolverMultistepScheduler", dict(use_beta_sigmas=True), "use_beta_sigmas is not implemented"),
        ("DPMSolverMultistepScheduler", dict(use_lu_lambdas=True), "set that"),
        ("UniPCMultistepScheduler", dict(use_flow_sigmas=True), "use_flow_sigmas is not implemented"),
        ("UniPCMultistepScheduler", dict(solver_p=3), "solver_p is not implemented"),
        ("UniPCMultistepScheduler", dict(predict_x0=False), "final_sigmas_type"),
        ("UniPCMultistepScheduler", dict(disable_corrector=3), "disable_corrector is 3"),
        ("DPMSolverSinglestepScheduler", dict(algorithm_type="dpmsolver"), "final_sigmas_type"),
        ("DPMSolverSinglestepScheduler", dict(algorithm_type="sde-dpmsolver"), "algorithm_type is 'sde-dpmsolver'"),
        ("DPMSolverMultistepScheduler", dict(prediction_type="flow_prediction"), "flow_prediction"),
        ("DEISMultistepScheduler", dict(solver_order=4), "solver_order is 4"),
        ("EulerDiscreteScheduler", dict(use_karras_sigmas=True, use_exponential_sigmas=True), "exclude each other"),
        ("EulerDiscreteScheduler", dict(sigma_max=-1.0), "sigma_max is -1.0"),
        ("PNDMScheduler", dict(prediction_type="sample"), "prediction_type is 'sample'"),
        ("SASolverScheduler", dict(tau_func=1), "tau_func is 1"),
        ("TCDScheduler", dict(eta=1.5), "eta is 1.5"),
    ],
    ids=str,
)
def test_refused_options_are_named(name, options, words):
    with pytest.raises(UserError, match=words):
        schedulers.SCHEDULERS[name](**options)


@pytest.mark.parametrize(
    "name, options, steps, words",
    [
        ("LCMScheduler", {}, 51, "original_inference_steps 50"),
        ("PNDMScheduler", {}, 3, "at least 4 steps"),
        ("DPMSolverMultistepScheduler", {}, 1000, "1000 steps are too many"),
        ("DEISMultistepScheduler", dict(timestep_spacing="leading"), 1000, "1000 steps are too many"),
    ],
)
def test_impossible_numbers_of_steps_are_named(name, options, steps, words):
    with pytest.raises(UserError, match=words):
        schedulers.SCHEDULERS[name](**options).schedule(steps)


def test_heun_starts_at_whole_steps():
    with pytest.raises(UserError, match="even index"):
        schedulers.HeunDiscreteScheduler().schedule(5).step(*two_arrays()[:1], 3, two_arrays()[1], None)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp-2m", "deis", "sa", "unipc"])
def test_noise_is_added_at_the_runs_own_levels(name):
    schedule = schedulers.create_by_name(name, KANDINSKY).schedule(10)
    original, noise = two_arrays()
    noisy = schedule.add_noise(original, noise, schedule.timesteps[4])
    shown = schedule.scale_model_input(noisy, 4)
    alpha = schedule.alphas_cumprod[int(schedule.timesteps[4])]
    # Whatever units a sampler has, the model is shown the same mixture; the constants are float32.
    np.testing.assert_allclose(shown, np.sqrt(alpha) * original + np.sqrt(1 - alpha) * noise, rtol=0, atol=2e-6)
