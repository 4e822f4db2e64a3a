"""Euler and Euler ancestral in sigma: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
Models", arXiv 2206.00364 (algorithm 2 with first-order steps), and k-diffusion's ancestral steps.

Samples are the picture plus sigma times noise; the model, trained on samples of unit variance, is shown them scaled.
"""

import math
from dataclasses import dataclass

import numpy as np

from .base import BETA_OPTIONS, PreciseSchedule, Scheduler
from .formulas import exp, linspace, spaced_timesteps
from .sigmas import (
    GRID_OPTIONS,
    LEAST_ALPHA_BAR,
    REFUSED_GRIDS,
    chosen_grid,
    falling_grid,
    interpolate,
    timesteps_of,
    training_sigmas,
)  # fmt: skip


class SigmaScheduler(Scheduler):
    def __init__(self, **options):
        super().__init__(**options)
        self._grid = chosen_grid(self)
        if self.config.get("rescale_betas_zero_snr"):
            self.alphas_cumprod[-1] = LEAST_ALPHA_BAR

    def _timesteps_and_sigmas(self, count):
        """float32 timesteps and float64 sigmas of `count` model calls."""
        config, training = self.config, training_sigmas(self.alphas_cumprod)
        if config["timestep_spacing"] == "linspace":  # not rounded: the model takes fractional timesteps
            last = config["num_train_timesteps"] - 1
            timesteps = np.linspace(0, last, count, dtype=np.float32)[::-1]
        else:
            timesteps = self._check_timesteps(spaced_timesteps(config, count)).astype(np.float32)
        sigmas = interpolate(timesteps, training)
        if config.get("interpolation_type") == "log_linear":
            sigmas = exp(linspace(np.log(training[-1]), np.log(training[0]), count + 1))
        if self._grid:
            high, low = config.get("sigma_max"), config.get("sigma_min")
            high, low = sigmas[0] if high is None else high, sigmas[-1] if low is None else low
            sigmas = falling_grid(self._grid, high, low, count)
            timesteps = timesteps_of(sigmas, training).astype(np.float32)
        return timesteps, sigmas


@dataclass(frozen=True, eq=False)
class SigmaSchedule(PreciseSchedule):
    """sigmas: float32, one for each timestep and the final one."""

    sigmas: np.ndarray

    @property
    def init_noise_sigma(self):  # type: ignore[override]
        largest = float(self.sigmas.max())
        return largest if self.config["timestep_spacing"] != "leading" else math.sqrt(largest**2 + 1)

    def scale_model_input(self, sample, index):
        return sample * self._signal(float(self.sigmas[index]))

    def add_noise(self, original, noise, timestep):
        """At the run's own noise levels: `timestep` is one of its timesteps."""
        return self.noised(original, noise, int(np.flatnonzero(self.timesteps == timestep)[0]))

    def noised(self, original, noise, index):
        return original + float(self.sigmas[index]) * noise

    def _signal(self, sigma):
        return 1 / math.sqrt(sigma * sigma + 1)

    def _data(self, model_output, sample, sigma):
        """The predicted picture at noise level `sigma`."""
        signal = self._signal(sigma)
        return self._predict_original(model_output, signal * sample, signal, signal * sigma)


class EulerDiscreteScheduler(SigmaScheduler):
    """As diffusers' class; the churn that its `step` takes as arguments (algorithm 2) are options here."""

    OPTIONS = dict(
        **BETA_OPTIONS,
        prediction_type="epsilon",
        interpolation_type="linear",
        **GRID_OPTIONS,
        sigma_min=None,
        sigma_max=None,
        timestep_spacing="linspace",
        timestep_type="discrete",
        steps_offset=0,
        rescale_betas_zero_snr=False,
        final_sigmas_type="zero",
        s_churn=0.0,
        s_tmin=0.0,
        s_tmax=math.inf,
        s_noise=1.0,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        prediction_type=("epsilon", "sample", "v_prediction"),
        interpolation_type=("linear", "log_linear"),
        timestep_spacing=("linspace", "leading", "trailing"),
        timestep_type=("discrete", "continuous"),
        final_sigmas_type=("zero", "sigma_min"),
    )
    REFUSED = REFUSED_GRIDS

    def schedule(self, num_inference_steps):
        timesteps, sigmas = self._timesteps_and_sigmas(self._check_steps(num_inference_steps))
        final = 0 if self.config["final_sigmas_type"] == "zero" else training_sigmas(self.alphas_cumprod)[0]
        sigmas = np.append(sigmas, final).astype(np.float32)
        if self.config["timestep_type"] == "continuous" and self.config["prediction_type"] == "v_prediction":
            timesteps = (0.25 * np.log(sigmas[:-1].astype(np.float64))).astype(np.float32)
        return EulerDiscreteSchedule(self.config, self.alphas_cumprod, timesteps, sigmas)


class EulerDiscreteSchedule(SigmaSchedule):
    def _step(self, model_output, index, sample, noise, state):
        config, sigma = self.config, float(self.sigmas[index])
        gamma = 0.0
        if config["s_tmin"] <= sigma <= config["s_tmax"]:
            gamma = min(config["s_churn"] / (len(self.sigmas) - 1), math.sqrt(2) - 1)
        raised = sigma * (gamma + 1)
        if gamma > 0:
            sample = sample + config["s_noise"] * math.sqrt(raised**2 - sigma**2) * noise()
        # As diffusers, which takes the raised noise level for a predicted noise alone.
        level = raised if config["prediction_type"] == "epsilon" else sigma
        derivative = (sample - self._data(model_output, sample, level)) / raised
        return sample + (float(self.sigmas[index + 1]) - raised) * derivative, None


class EulerAncestralDiscreteScheduler(SigmaScheduler):
    """As diffusers' class (k-diffusion, sampling.py, get_ancestral_step and sample_euler_ancestral)."""

    OPTIONS = dict(
        **BETA_OPTIONS,
        prediction_type="epsilon",
        timestep_spacing="linspace",
        steps_offset=0,
        rescale_betas_zero_snr=False,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        prediction_type=("epsilon", "sample", "v_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )

    def schedule(self, num_inference_steps):
        timesteps, sigmas = self._timesteps_and_sigmas(self._check_steps(num_inference_steps))
        sigmas = np.append(sigmas, 0).astype(np.float32)
        return EulerAncestralDiscreteSchedule(self.config, self.alphas_cumprod, timesteps, sigmas)


class EulerAncestralDiscreteSchedule(SigmaSchedule):
    def _step(self, model_output, index, sample, noise, state):
        sigma, following = float(self.sigmas[index]), float(self.sigmas[index + 1])
        if following > sigma:  # odd betas, rescaled
            raise ArithmeticError("the noise levels rise")
        up = following * math.sqrt(sigma**2 - following**2) / sigma  # what noise puts back of `following`
        down = following**2 / sigma
        derivative = (sample - self._data(model_output, sample, sigma)) / sigma
        return sample + (down - sigma) * derivative + up * noise(), None
