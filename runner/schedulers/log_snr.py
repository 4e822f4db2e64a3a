"""What the solvers in half log-SNR share: DPM-Solver, UniPC, DEIS, SA-Solver.

They integrate over lambda = log(alpha / sigma), in which the linear part of the diffusion ODE or SDE is solved exactly
(DPM-Solver, arXiv 2206.00927, section 3). Their coefficients subtract nearly equal exponentials, and lose what the
step is made of when computed in float32; here they are computed in float64, from the float32 sigmas of the grid.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..common.errors import UserError
from .base import PreciseSchedule, Scheduler
from .sigmas import (  # fmt: skip
    LEAST_ALPHA_BAR,
    chosen_grid,
    falling_grid,
    interpolate,
    solver_timesteps,
    timesteps_of,
    training_sigmas,
)


class Level(NamedTuple):
    """A noise level: the sample is `signal` times the picture plus `noise` times noise; lam = log(signal / noise)."""

    signal: float
    noise: float
    lam: float


def combine(*terms):
    """The sum of weight * array over `terms`."""
    return sum(weight * array for weight, array in terms)


class LogSnrScheduler(Scheduler):
    SCHEDULE: type  # the Schedule class of `schedule`
    FINAL_IS_LOWEST = False  # whether a Karras or exponential grid ends in its own last sigma, twice

    def __init__(self, **options):
        super().__init__(**options)
        self._grid = chosen_grid(self)
        if self.config.get("rescale_betas_zero_snr"):
            self.alphas_cumprod[-1] = LEAST_ALPHA_BAR

    def schedule(self, num_inference_steps):
        count, training = self._check_steps(num_inference_steps), training_sigmas(self.alphas_cumprod)
        timesteps = self._check_timesteps(solver_timesteps(self.config, self.alphas_cumprod, count))
        if self._grid:
            high, low = self.config.get("sigma_max"), self.config.get("sigma_min")
            high, low = training[-1] if high is None else high, training[0] if low is None else low
            sigmas = falling_grid(self._grid, high, low, count)
            timesteps = timesteps_of(sigmas, training)
            timesteps = (timesteps.round() if self._rounds() else timesteps).astype(np.int64)
        else:
            sigmas = interpolate(timesteps, training)
        lowest = sigmas[-1] if self._grid and self.FINAL_IS_LOWEST else training[0]
        final = 0 if self.config.get("final_sigmas_type") == "zero" else lowest
        sigmas = np.append(sigmas, final).astype(np.float32)
        if np.any(np.diff(sigmas[:-1]) >= 0):
            raise UserError(
                f"{self.name}: {count} steps are too many for {self.config['num_train_timesteps']} training timesteps "
                "with these options: two steps would have the same noise level"
            )
        return self.SCHEDULE(self.config, self.alphas_cumprod, timesteps, sigmas)

    def _rounds(self):
        """Whether timesteps of a grid are rounded, or cut, as diffusers does for the exponential one."""
        return self._grid != "exponential"


@dataclass(frozen=True, eq=False)
class LogSnrSchedule(PreciseSchedule):
    """sigmas: float32, one for each timestep and the final one."""

    sigmas: np.ndarray

    def level(self, index) -> Level:
        sigma = float(self.sigmas[index])
        signal = 1 / math.sqrt(sigma * sigma + 1)
        return Level(signal, sigma * signal, -math.log(sigma) if sigma else math.inf)

    def add_noise(self, original, noise, timestep):
        """At the run's own noise levels: `timestep` is one of its timesteps."""
        return self.noised(original, noise, int(np.flatnonzero(self.timesteps == timestep)[0]))

    def noised(self, original, noise, index):
        level = self.level(index)
        return combine((level.signal, original), (level.noise, noise))

    def _data(self, model_output, index, sample):
        """The predicted picture at call `index`."""
        level = self.level(index)
        return self._predict_original(model_output, sample, level.signal, level.noise)

    def _noise(self, model_output, index, sample):
        """The predicted noise at call `index`; with thresholding, that of the thresholded picture."""
        level = self.level(index)
        if not self.config["thresholding"]:
            return self._predict_noise(model_output, sample, level.signal, level.noise)
        original = self._predict_original(model_output, sample, level.signal, level.noise)
        return (sample - level.signal * original) / level.noise
