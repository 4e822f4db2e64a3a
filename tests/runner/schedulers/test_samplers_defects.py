"""Where diffusers 0.42.1 has no answer or a wrong one: against the papers' formulas, evaluated independently here.

Arrays are float64, in which steps are exact to 1e-12 where nothing else is said.
"""

import math

import diffusers
import numpy as np
import pytest
import torch
from kandinsky_mindir.runner import schedulers
from scheduler_reference import KANDINSKY, SHAPE, Case, Noises, diffusers_trajectory, trajectory


def two_arrays():
    return np.random.default_rng(3).standard_normal((2, *SHAPE))


def test_trailing_spacing_has_the_steps_asked_for():
    """1000 / 61 is rounded down, so that diffusers' arange has a 62nd timestep, -1, for which there is no model."""
    theirs = diffusers.EulerDiscreteScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(61)
    assert len(theirs.timesteps) == 62 and theirs.timesteps[-1] == -1
    for name in ("euler", "dpmpp-2m", "unipc", "deis", "ddim", "ddpm", "heun"):
        schedule = schedulers.create_by_name(name, dict(timestep_spacing="trailing")).schedule(61)
        assert len(np.unique(schedule.timesteps)) == 61 and schedule.timesteps[-1] >= 0


def integral(polynomial, rate, h, points=64):
    """The integral of rate exp(-rate (h - v)) polynomial(v) over v from 0 to h, by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    v = (nodes + 1) * h / 2
    return sum(w * h / 2 * rate * math.exp(-rate * (h - x)) * polynomial(x) for w, x in zip(weights, v))


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"])
def test_third_order_sde_solvers(name):
    """diffusers has the wrong sign before one half in the third coefficient of its SDE forms.

    Here the step is the paper's integral (arXiv 2211.01095, section 3.4), evaluated by quadrature: of the parabola
    through the three predictions for the singlestep solver; for the multistep one, of the authors' expansion, which
    has half of the parabola's last term.
    """
    options = dict(solver_order=3, algorithm_type="sde-dpmsolver++", prediction_type="sample", solver_type="heun")
    schedule = schedulers.SCHEDULERS[name](**options).schedule(18)
    x, eps = two_arrays()
    outputs = np.random.default_rng(5).standard_normal((3, *SHAPE))
    state, samples, drawn = None, [x], 0 * eps
    for index in range(3):
        drawn = eps if index == 2 else 0 * eps
        sample, state = schedule.step(outputs[index], index, samples[-1], lambda: drawn, state)
        samples.append(sample)
    first = 0 if "Single" in name else 2  # the call that the last step starts from
    sigmas = [float(sigma) for sigma in schedule.sigmas]
    lam = [-math.log(sigma) for sigma in sigmas[:4]]
    h = lam[3] - lam[first]
    places = [lam[i] - lam[first] for i in range(3)]
    parabola = [np.polyfit(places, outputs[(slice(None), *at)], 2) for at in np.ndindex(SHAPE)]
    bend, slope, start = (np.reshape(column, SHAPE) for column in np.array(parabola).T)
    if "Multi" in name:
        bend = bend / 2
    signal, noise = 1 / math.sqrt(1 + sigmas[3] ** 2), 1 / math.sqrt(1 + sigmas[3] ** -2)
    start_noise = 1 / math.sqrt(1 + sigmas[first] ** -2)
    expected = (
        noise / start_noise * math.exp(-h) * samples[first]
        + signal * integral(lambda v: start + slope * v + bend * v * v, 2, h)
        + noise * math.sqrt(1 - math.exp(-2 * h)) * eps
    )
    np.testing.assert_allclose(samples[3], expected, rtol=0, atol=1e-12)  # both in float64


def test_third_order_sde_of_noise_predictions():
    """diffusers fails here: it has no such branch. As in its lower orders, the SDE pushes twice as far as the ODE."""
    results = {}
    for algorithm in ("dpmsolver", "sde-dpmsolver"):
        options = dict(algorithm_type=algorithm, solver_order=3, final_sigmas_type="sigma_min")
        schedule = schedulers.DPMSolverMultistepScheduler(**options).schedule(20)
        x, output = two_arrays()
        state = (output + 1, output * 2)  # predictions of earlier calls
        results[algorithm], _ = schedule.step(output, 5, x, lambda: 0 * x, state)
        keep = math.sqrt((1 + float(schedule.sigmas[5]) ** 2) / (1 + float(schedule.sigmas[6]) ** 2))
    np.testing.assert_allclose(
        results["sde-dpmsolver"] - keep * x, 2 * (results["dpmsolver"] - keep * x), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    "name, options",
    [
        ("UniPCMultistepScheduler", dict(predict_x0=False, final_sigmas_type="sigma_min")),
        ("DPMSolverSinglestepScheduler", dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min")),
        ("SASolverScheduler", dict(algorithm_type="noise_prediction", tau_func=lambda t: 0)),
    ],
)
def test_thresholding_of_noise_predictions(name, options):
    """diffusers leaves it out (UniPC) or fails; the first step is DDIM's with the thresholded picture for all three."""
    schedule = schedulers.SCHEDULERS[name](**options, thresholding=True, sample_max_value=2.0).schedule(20)
    x, output = two_arrays()
    sigma, following = float(schedule.sigmas[0]), float(schedule.sigmas[1])
    signal, signal_following = 1 / math.sqrt(1 + sigma**2), 1 / math.sqrt(1 + following**2)
    picture = (x - sigma * signal * output) / signal
    bound = np.clip(np.quantile(np.abs(picture).reshape(len(x), -1), 0.995, axis=1), 1, 2).reshape(-1, 1, 1, 1)
    picture = np.clip(picture, -bound, bound) / bound
    epsilon = (x - signal * picture) / (sigma * signal)
    expected = signal_following * picture + following * signal_following * epsilon
    ours, _ = schedule.step(output, 0, x, lambda: 0 * x)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)  # the quantile's rank is float32, as torch's


@pytest.mark.parametrize("options", [dict(lower_order_final=False), dict(solver_type="bh1")], ids=str)
def test_unipc_ends_at_the_predicted_picture(options):
    """In these cases diffusers divides by, or multiplies, the infinite last step: its picture is not finite."""
    options = dict(options, prediction_type="sample")
    schedule = schedulers.UniPCMultistepScheduler(**options).schedule(4)
    case = Case()
    picture = trajectory(schedule, case, Noises())[1][-1]
    assert np.array_equal(picture, case.output(3))
    theirs = diffusers.UniPCMultistepScheduler(**options)
    theirs.set_timesteps(4)
    assert not np.all(np.isfinite(diffusers_trajectory(theirs, case, Noises())[1][-1]))


@pytest.mark.parametrize(
    "name, options",
    [
        ("DPMSolverMultistepScheduler", dict(solver_type="heun")),
        ("DPMSolverMultistepScheduler", dict(solver_order=3)),
        ("UniPCMultistepScheduler", dict(lower_order_final=False, solver_order=3)),
    ],
)
def test_solvers_stay_where_the_last_step_leads_nowhere(name, options):
    """A Karras grid with final_sigmas_type sigma_min ends in one noise level twice: 0 / 0 in diffusers."""
    options = dict(options, use_karras_sigmas=True, final_sigmas_type="sigma_min", prediction_type="sample")
    schedule = schedulers.SCHEDULERS[name](**options).schedule(20)
    assert schedule.sigmas[-1] == schedule.sigmas[-2]
    sample = two_arrays()[0]
    samples = trajectory(schedule, Case(), Noises())[1]
    if name.startswith("DPM"):  # UniPC corrects the sample before it stays there
        np.testing.assert_allclose(samples[-1], samples[-2], rtol=2.4e-7, atol=0)
    stays, _ = schedule.step(sample, 19, sample, None)
    np.testing.assert_allclose(stays, sample, rtol=1e-15, atol=0)
    assert np.all(np.isfinite(samples[-1]))
    theirs = getattr(diffusers, name)(**options)
    theirs.set_timesteps(20)
    assert np.isnan(diffusers_trajectory(theirs, Case(), Noises())[1][-1]).all()


def test_euler_ancestral_takes_predicted_pictures():
    """diffusers raises NotImplementedError. A predicted picture is a predicted noise of (x - picture) / sigma."""
    x, picture = two_arrays()
    steps = {}
    for kind in ("sample", "epsilon"):
        schedule = schedulers.EulerAncestralDiscreteScheduler(prediction_type=kind).schedule(10)
        output = picture if kind == "sample" else (x - picture) / float(schedule.sigmas[4])
        steps[kind], _ = schedule.step(output, 4, x, lambda: x)
    np.testing.assert_allclose(steps["sample"], steps["epsilon"], rtol=0, atol=1e-12)


def test_learned_variance_of_the_checkpoint_does_no_harm():
    """diffusers' DPM-Solver cuts a learned-variance output to 3 channels, though latents have 4: it fails."""
    x, output = (array.astype(np.float32) for array in two_arrays())
    theirs = diffusers.DPMSolverMultistepScheduler.from_config(KANDINSKY)
    theirs.set_timesteps(10)
    with pytest.raises(RuntimeError):
        theirs.step(torch.from_numpy(output), theirs.timesteps[0], torch.from_numpy(x))
    kept, dropped = (
        schedulers.create_by_name("dpmpp-2m", {**KANDINSKY, "variance_type": variance})
        for variance in ("learned_range", None)
    )
    assert not kept.learned_variance
    steps = [scheduler.schedule(10).step(output, 0, x, None)[0] for scheduler in (kept, dropped)]
    assert np.array_equal(*steps)


def test_pndm_may_start_inside_a_step():
    """Picture-to-picture starts anywhere; where PNDM calls twice or four times for a step, it waits for the next."""
    x, output = two_arrays()
    schedule = schedulers.PNDMScheduler(skip_prk_steps=True).schedule(10)
    same, state = schedule.step(output, 1, x, None)
    assert same is not None and np.array_equal(same, x) and state is None
    schedule = schedulers.PNDMScheduler().schedule(10)
    for index in (1, 2, 3, 5):
        same, state = schedule.step(output, index, x, None)
        assert np.array_equal(same, x) and state is None
    moved, _ = schedule.step(output, 4, x, None)
    assert not np.array_equal(moved, x)
