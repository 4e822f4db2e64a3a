"""Each solver shows its order on a problem whose solution is known; samplers_plot.py draws it.

For normal data (normal_data.py) the diffusion ODE keeps each sample at the same distance from the mean in units of the
deviation of its noise level (arXiv 2011.13456, section 4.3, solved for a normal density). Everything is float64; an
error that falls with the power p of the number of steps gives a slope of p between two numbers of steps, near enough at
100 and 200 to tell p from p + 1 (a quarter is allowed).
"""

import math

import numpy as np
import pytest
import samplers_plot
from kandinsky_mindir.runner import schedulers
from normal_data import DEVIATION, MEAN, predicted_noise
from row_names import row_name

START = np.linspace(-2, 2, 8).reshape(1, 2, 2, 2)
STEPS = (100, 200)
NONE = 0 * START


def without_noise(timestep):
    return 0.0


# Sampler, options, order. The corrector of UniPC raises its order by one; a third-order multistep DPM-Solver++ is of
# second order, since the authors' code, and diffusers and this project with it, takes half of its last term.
KARRAS = dict(use_karras_sigmas=True)
DPM = dict(KARRAS, final_sigmas_type="sigma_min")
SOLVERS = [
    ("DPMSolverMultistepScheduler", dict(DPM, solver_order=1), 1),
    ("DPMSolverMultistepScheduler", dict(DPM), 2),
    ("DPMSolverMultistepScheduler", dict(DPM, solver_type="heun"), 2),
    ("DPMSolverMultistepScheduler", dict(DPM, solver_order=3), 2),
    ("DPMSolverMultistepScheduler", dict(DPM, algorithm_type="dpmsolver"), 2),
    ("DPMSolverSinglestepScheduler", dict(DPM), 2),
    ("DPMSolverSinglestepScheduler", dict(DPM, solver_type="heun"), 2),
    ("DPMSolverSinglestepScheduler", dict(DPM, solver_order=3), 3),
    ("DPMSolverSinglestepScheduler", dict(DPM, solver_order=3, solver_type="heun"), 3),
    ("DPMSolverSinglestepScheduler", dict(DPM, solver_order=3, algorithm_type="dpmsolver"), 3),
    ("UniPCMultistepScheduler", dict(DPM, solver_order=1), 2),
    ("UniPCMultistepScheduler", dict(DPM), 3),
    ("UniPCMultistepScheduler", dict(DPM, solver_type="bh1"), 3),
    ("UniPCMultistepScheduler", dict(DPM, predict_x0=False), 3),
    ("UniPCMultistepScheduler", dict(DPM, disable_corrector=range(200)), 2),
    ("UniPCMultistepScheduler", dict(DPM, solver_order=3), 4),
    ("DEISMultistepScheduler", dict(KARRAS, solver_order=1), 1),
    ("DEISMultistepScheduler", dict(KARRAS), 2),
    ("DEISMultistepScheduler", dict(KARRAS, solver_order=3), 3),
    ("SASolverScheduler", dict(KARRAS, tau_func=without_noise), 2),
    ("EulerDiscreteScheduler", dict(DPM), 1),
    ("HeunDiscreteScheduler", KARRAS, 2),
]


def error(name, options, steps):
    """The greatest error of a run at its lowest noise level above zero."""
    options = {key: list(value) if isinstance(value, range) else value for key, value in options.items()}
    schedule = schedulers.SCHEDULERS[name](beta_start=0.00085, beta_end=0.012, **options).schedule(steps)
    scaled = schedule.init_noise_sigma != 1  # samples are the picture plus noise, not shrunk to unit variance
    sample, state = START * (math.sqrt(1 + level(schedule, 0) ** 2) if scaled else 1), None
    calls = len(schedule.timesteps) - (schedule.sigmas[-1] == 0)
    for index in range(calls):
        shown, sigma = schedule.scale_model_input(sample, index), level(schedule, index)
        output = predicted_noise(shown, 1 / (1 + sigma**2))
        sample, state = schedule.step(output, index, sample, lambda: NONE, state)
    first, last = level(schedule, 0), level(schedule, calls)
    distance = (START * math.sqrt(1 + first**2) - MEAN) / math.sqrt(DEVIATION**2 + first**2)
    exact = MEAN + distance * math.sqrt(DEVIATION**2 + last**2)
    return np.abs(sample / (1 if scaled else 1 / math.sqrt(1 + last**2)) - exact).max()


def level(schedule, index):
    return float(schedule.sigmas[index])


@pytest.mark.parametrize("name, options, order", SOLVERS, ids=row_name)
def test_order_of_accuracy(name, options, order):
    few, many = (error(name, options, steps) for steps in STEPS)
    assert abs(math.log2(few / many) - order) < 0.25


TRAIN = samplers_plot.TRAIN


@pytest.mark.parametrize(
    "name, options, order",
    [
        ("DDIMScheduler", dict(clip_sample=False), 1),
        ("PNDMScheduler", dict(skip_prk_steps=True), 2),  # arXiv 2202.09778, section 3.3: its transfer's order
        ("PNDMScheduler", {}, 2),
    ],
    ids=str,
)
def test_order_of_accuracy_in_timesteps(name, options, order):
    """Down to an eighth of the process: nearer to its end the noise falls with a root of the timestep, and no
    polynomial in timesteps follows it."""
    betas = dict(num_train_timesteps=TRAIN, beta_start=0.85 / TRAIN, beta_end=12 / TRAIN)
    scheduler = schedulers.SCHEDULERS[name](**betas, **options)
    errors = []
    for steps in (64, 128):
        schedule, sample, state = scheduler.schedule(steps), START, None
        for index, timestep in enumerate(schedule.timesteps):
            if timestep == TRAIN // 8:
                break
            output = predicted_noise(sample, float(schedule.alphas_cumprod[timestep]))
            sample, state = schedule.step(output, index, sample, None, state)
        exact = moved(schedule, schedule.timesteps[0], TRAIN // 8)
        errors.append(np.abs(sample - exact).max())
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25


def moved(schedule, start, end):
    """START at timestep `start`, moved to `end` by the ODE."""
    (mean, deviation), (end_mean, end_deviation) = (
        (math.sqrt(alpha) * MEAN, math.sqrt(alpha * DEVIATION**2 + 1 - alpha))
        for alpha in (float(schedule.alphas_cumprod[timestep]) for timestep in (start, end))
    )
    return end_mean + (START - mean) / deviation * end_deviation


@pytest.mark.parametrize("name", ["ddpm", "unclip", "euler-a", "dpmpp-2m-sde", "dpmpp-2s-sde", "sa"])
def test_order_of_accuracy_of_the_distribution(name):
    """Stochastic samplers, by the distribution that they end in: DPM-Solver++ 2M and SA keep their second order."""
    few, many = (samplers_plot.fine_error(name, steps) for steps in (128, 256))
    assert abs(math.log2(few / many) - samplers_plot.ORDERS[name]) < 0.25
