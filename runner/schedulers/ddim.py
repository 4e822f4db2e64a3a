"""DDIM: Song, Meng, Ermon, "Denoising Diffusion Implicit Models", arXiv 2010.02502, eq. 12 and 16."""

from dataclasses import dataclass

import numpy as np

from .base import BETA_OPTIONS, CLIP_OPTIONS, THRESHOLDING_OPTIONS, Schedule, Scheduler
from .formulas import ONE, spaced_timesteps


class DDIMScheduler(Scheduler):
    """As diffusers' class. What its `step` takes as arguments are options here: `eta` (0: no noise, 1: as DDPM) and
    `use_clipped_model_output` (the noise is predicted anew from the clipped picture).

    As there, a step leads num_train_timesteps // num_inference_steps timesteps down, which is the next timestep of
    the run for leading spacing alone: prefer it.
    """

    OPTIONS = dict(
        **BETA_OPTIONS,
        **CLIP_OPTIONS,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="epsilon",
        **THRESHOLDING_OPTIONS,
        timestep_spacing="leading",
        rescale_betas_zero_snr=False,
        eta=0.0,
        use_clipped_model_output=False,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        prediction_type=("epsilon", "sample", "v_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )

    def schedule(self, num_inference_steps):
        count = self._check_steps(num_inference_steps)
        timesteps = self._check_timesteps(spaced_timesteps(self.config, count))
        return DDIMSchedule(self.config, self.alphas_cumprod, timesteps, self.config["num_train_timesteps"] // count)


@dataclass(frozen=True, eq=False)
class DDIMSchedule(Schedule):
    stride: int

    def step(self, model_output, index, sample, noise, state=None):
        timestep = int(self.timesteps[index])
        previous = timestep - self.stride
        final = ONE if self.config["set_alpha_to_one"] else self.alphas_cumprod[0]
        alpha = self.alphas_cumprod[timestep]
        alpha_previous = self.alphas_cumprod[previous] if previous >= 0 else final
        signal, noise_level = np.sqrt(alpha), np.sqrt(ONE - alpha)
        original = self._predict_original(model_output, sample, signal, noise_level)
        if self.config["use_clipped_model_output"]:
            epsilon = (sample - signal * original) / noise_level
        else:
            epsilon = self._predict_noise(model_output, sample, signal, noise_level)
        variance = (ONE - alpha_previous) / (ONE - alpha) * (ONE - alpha / alpha_previous)  # eq. 16
        deviation = np.float32(self.config["eta"]) * np.sqrt(variance)
        # Eq. 12: the predicted picture, the direction that points to the sample, fresh noise.
        sample = np.sqrt(alpha_previous) * original + np.sqrt(ONE - alpha_previous - deviation * deviation) * epsilon
        return (sample + deviation * noise() if self.config["eta"] > 0 else sample), None
