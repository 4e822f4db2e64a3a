"""Samplers for distilled models: latent consistency (LCM) and trajectory consistency (TCD)."""

import math
from typing import ClassVar

import numpy as np

from ..common.errors import UserError
from .base import BETA_OPTIONS, CLIP_OPTIONS, THRESHOLDING_OPTIONS, Schedule, Scheduler
from .formulas import ONE

SIGMA_DATA = 0.5  # of the consistency models' boundary condition (arXiv 2303.01469, appendix C)

_OPTIONS = {
    **BETA_OPTIONS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    **CLIP_OPTIONS,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    **THRESHOLDING_OPTIONS,
    "timestep_spacing": "leading",
    "timestep_scaling": 10.0,
    "rescale_betas_zero_snr": False,
}


class _ConsistencyScheduler(Scheduler):
    """Timesteps are some of the `original_inference_steps` that the model was distilled on; diffusers has options for
    spacing and offset, and heeds them here as little as there."""

    SCHEDULE: ClassVar[type]  # set below, where the schedules are there
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        prediction_type=("epsilon", "sample", "v_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )

    def schedule(self, num_inference_steps):
        count, train = self._check_steps(num_inference_steps), self.config["num_train_timesteps"]
        original = self.config["original_inference_steps"]
        if not count <= original <= train:
            raise UserError(
                f"{self.name}: {count} steps out of original_inference_steps {original}, out of num_train_timesteps "
                f"{train}; each must be at most the next"
            )
        falling = np.arange(original, 0, -1) * (train // original) - 1
        chosen = np.floor(np.linspace(0, original, count, endpoint=False)).astype(np.int64)
        return self.SCHEDULE(self.config, self.alphas_cumprod, self._check_timesteps(falling[chosen]))


class LCMScheduler(_ConsistencyScheduler):
    """Luo et al., "Latent Consistency Models", arXiv 2310.04378; multistep sampling is algorithm 3."""

    OPTIONS = _OPTIONS


class LCMSchedule(Schedule):
    def step(self, model_output, index, sample, noise, state=None):
        timestep, following = int(self.timesteps[index]), self._next_timestep(index)
        alpha = self.alphas_cumprod[timestep]
        original = self._predict_original(model_output, sample, np.sqrt(alpha), np.sqrt(ONE - alpha))
        scaled = timestep * self.config["timestep_scaling"]
        norm = scaled**2 + SIGMA_DATA**2
        denoised = scaled / math.sqrt(norm) * original + SIGMA_DATA**2 / norm * sample
        if following < 0:
            return denoised, None
        alpha = self.alphas_cumprod[following]
        return np.sqrt(alpha) * denoised + np.sqrt(ONE - alpha) * noise(), None


class TCDScheduler(_ConsistencyScheduler):
    """Zheng et al., "Trajectory Consistency Distillation", arXiv 2402.19159, algorithm 4 (gamma is `eta`).

    eta, an argument of diffusers' `step`, is an option here: 0 is deterministic. As there, nothing is clipped.
    """

    OPTIONS = {**_OPTIONS, "eta": 0.3}

    def __init__(self, **options):
        super().__init__(**options)
        if not 0 <= self.config["eta"] <= 1:
            raise UserError(f"{self.name}: eta is {self.config['eta']!r}; it must be from 0 to 1")


class TCDSchedule(Schedule):
    def step(self, model_output, index, sample, noise, state=None):
        eta, following = self.config["eta"], max(self._next_timestep(index), 0)
        middle = int(np.floor(np.float32(1 - eta) * np.float32(following)))
        alpha, alpha_middle = self.alphas_cumprod[self.timesteps[index]], self.alphas_cumprod[middle]
        signal, noise_level = np.sqrt(alpha), np.sqrt(ONE - alpha)
        original = self._predict_unlimited(model_output, sample, signal, noise_level)
        epsilon = self._predict_noise(model_output, sample, signal, noise_level)
        sample = np.sqrt(alpha_middle) * original + np.sqrt(ONE - alpha_middle) * epsilon
        if eta == 0 or index + 1 == len(self.timesteps):
            return sample, None
        ratio = self.alphas_cumprod[following] / alpha_middle
        return np.sqrt(ratio) * sample + np.sqrt(ONE - ratio) * noise(), None


LCMScheduler.SCHEDULE = LCMSchedule
TCDScheduler.SCHEDULE = TCDSchedule
