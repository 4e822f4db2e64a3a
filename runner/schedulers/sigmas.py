"""Noise levels of a run, for the samplers that think in them: sigma = sqrt((1 - alpha_bar) / alpha_bar)."""

import math

import numpy as np

from ..common.errors import UserError
from .formulas import ONE, log, trailing_timesteps

GRID_OPTIONS = dict(use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False)
REFUSED_GRIDS = dict(use_beta_sigmas="it needs SciPy's quantiles of the beta distribution")
# A scheduler_config.json that diffusers wrote has these; they mean nothing without flow matching.
FLOW_OPTIONS = dict(use_flow_sigmas=False, flow_shift=1.0, use_dynamic_shifting=False, time_shift_type="exponential")
REFUSED_FLOW = dict.fromkeys(
    ("use_flow_sigmas", "use_dynamic_shifting"), "it is for models of flow matching, which Kandinsky 2.2 is not"
)
# What stands for an alpha_bar of zero, whose sigma would be infinite, after rescaling to zero terminal SNR.
LEAST_ALPHA_BAR = np.float32(2**-24)


def training_sigmas(alphas_cumprod):
    """float32 sigma of each training timestep, rising."""
    return np.sqrt((ONE - alphas_cumprod) / alphas_cumprod)


def chosen_grid(scheduler):
    """"karras", "exponential" or None: the grid that the options ask for; UserError if they ask for both."""
    chosen = [grid for grid in ("karras", "exponential") if scheduler.config.get(f"use_{grid}_sigmas")]
    if len(chosen) > 1:
        raise UserError(f"{scheduler.name}: use_karras_sigmas and use_exponential_sigmas exclude each other")
    return chosen[0] if chosen else None


def falling_grid(grid, high, low, count):
    """`count` float64 sigmas from `high` to `low`.

    karras: arXiv 2206.00364, eq. 5, rho 7. exponential: evenly spaced logarithms, which is uniform log-SNR.
    """
    high, low = float(high), float(low)
    if grid == "karras":
        ramp = np.linspace(0, 1, count)
        return (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    return np.exp(np.linspace(math.log(high), math.log(low), count))


def timesteps_of(sigmas, training):
    """Where `sigmas` lie among the `training` ones: fractional timesteps, interpolated in log sigma."""
    levels = np.log(training)
    wanted = np.log(np.maximum(sigmas, 1e-10))
    # The last level at or below; not a binary search, as rescaling to zero terminal SNR can leave the last one lower.
    low = np.array([max(np.flatnonzero(levels <= level), default=0) for level in wanted])
    low = np.minimum(low, len(levels) - 2)
    weight = np.clip((levels[low] - wanted) / (levels[low] - levels[low + 1]), 0, 1)
    return (1 - weight) * low + weight * (low + 1)


def solver_timesteps(config, alphas_cumprod, count):
    """int64 timesteps of the log-SNR solvers: `count` + 1 points, the last of which is the end and no model call.

    lambda_min_clipped leaves out the noisiest timesteps, whose half log-SNR is below it (for cosine betas).
    """
    clip = config.get("lambda_min_clipped", -math.inf)
    half_log_snr = log(np.sqrt(alphas_cumprod)) - log(np.sqrt(ONE - alphas_cumprod))
    last = config["num_train_timesteps"] - int(np.searchsorted(half_log_snr[::-1], np.float32(clip)))
    spacing = config.get("timestep_spacing", "linspace")
    if spacing == "linspace":
        return np.linspace(0, last - 1, count + 1).round()[:0:-1].astype(np.int64)
    if spacing == "leading":
        return (np.arange(count + 1) * (last // (count + 1)))[:0:-1] + config["steps_offset"]
    return trailing_timesteps(last, config["num_train_timesteps"] / count)


def interpolate(timesteps, training):
    """float64 sigmas at (fractional) `timesteps`."""
    return np.interp(timesteps, np.arange(len(training)), training)
