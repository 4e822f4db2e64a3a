"""Heun's second-order steps in sigma: Karras et al., arXiv 2206.00364, algorithm 1."""

import numpy as np

from ..common.errors import UserError
from .base import BETA_OPTIONS
from .euler import SigmaSchedule, SigmaScheduler
from .sigmas import GRID_OPTIONS, REFUSED_GRIDS


class HeunDiscreteScheduler(SigmaScheduler):
    """As diffusers' class: two model calls a step, but for the last."""

    OPTIONS = {
        **BETA_OPTIONS,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "epsilon",
        **GRID_OPTIONS,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2", "exp"),
        prediction_type=("epsilon", "sample", "v_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )
    REFUSED = REFUSED_GRIDS

    def schedule(self, num_inference_steps):
        timesteps, sigmas = self._timesteps_and_sigmas(self._check_steps(num_inference_steps))
        sigmas = np.append(sigmas, 0).astype(np.float32)
        # Calls 0; 1, 2; 3, 4; ...: the second call of a step is at the noise level where the next step starts.
        calls = np.arange(2 * len(timesteps) - 1)
        levels = np.append(calls + 1, 2 * len(timesteps)) // 2
        return HeunDiscreteSchedule(self.config, self.alphas_cumprod, timesteps[(calls + 1) // 2], sigmas[levels])


class HeunDiscreteSchedule(SigmaSchedule):
    calls_per_step = 2

    def _step(self, model_output, index, sample, noise, state):
        """`state` between the two calls of a step: (the sample and the derivative at its start)."""
        sigma = float(self.sigmas[index])
        derivative = (sample - self._data(model_output, sample, sigma)) / sigma
        if index % 2 == 0:
            length = float(self.sigmas[index + 1]) - sigma
            return sample + length * derivative, (sample, derivative)
        if state is None:
            raise UserError(f"a run of HeunDiscreteScheduler starts at an even index, not at {index}")
        start, first = state
        length = sigma - float(self.sigmas[index - 1])
        return start + length * ((first + derivative) / 2), None
