"""A model that knows the answer: data that are normal with mean MEAN and deviation DEVIATION.

Its score is linear, the distribution at every noise level is known, and every sampler's step is an affine function of
the sample and of the noise that it draws. So the distribution that a sampler ends in is normal too, and is computed
exactly: one row of the batch carries the mean, and one row each the effect of a unit of the first sample's noise and of
every draw. Nothing is random, and stochastic samplers are measured as sharply as the others.
"""

import math

import numpy as np

MEAN, DEVIATION = 0.4, 0.6


def alpha_bar(schedule, index):
    """The signal's share of the variance at call `index`, or at the end of the run."""
    if hasattr(schedule, "sigmas"):
        return 1 / (1 + float(schedule.sigmas[index]) ** 2)
    return float(schedule.alphas_cumprod[schedule.timesteps[index]]) if index < len(schedule.timesteps) else 1.0


def predicted_noise(sample, alpha):
    """E[noise | sample], where the sample is sqrt(alpha) times the picture plus sqrt(1 - alpha) times noise."""
    return math.sqrt(1 - alpha) * (sample - math.sqrt(alpha) * MEAN) / (alpha * DEVIATION**2 + 1 - alpha)


def marginal(schedule, index):
    """(mean, deviation) of the exact samples at call `index`."""
    alpha = alpha_bar(schedule, index)
    scaled = schedule.init_noise_sigma != 1  # samples are the picture plus noise, not shrunk to unit variance
    unit = 1 / math.sqrt(alpha) if scaled else 1
    return unit * math.sqrt(alpha) * MEAN, unit * math.sqrt(alpha * DEVIATION**2 + 1 - alpha)


def distance(schedule, calls):
    """How far the distribution after `calls` calls is from the exact one: the 2-Wasserstein distance of two normals,
    the distance of (mean, deviation), in units of a picture's own; the run starts in the exact distribution."""
    rows = np.zeros((2 + 2 * calls, 1, 1, 1))
    mean, deviation = marginal(schedule, 0)
    sample, drawn, state = rows + mean, 2, None
    sample[1] += deviation

    def noise():
        nonlocal drawn
        draw = np.zeros_like(rows)
        draw[drawn], drawn = 1, drawn + 1
        return draw

    for index in range(calls):
        output = predicted_noise(schedule.scale_model_input(sample, index), alpha_bar(schedule, index))
        sample, state = schedule.step(output, index, sample, noise, state)
    mean, deviation = marginal(schedule, calls)
    return math.hypot(sample[0].item() - mean, np.linalg.norm(sample[1:drawn] - sample[0]) - deviation)
