"""The sampler of Kandinsky's prior, from unCLIP (arXiv 2204.06125) as Karlo and diffusers have it: DDPM with betas
computed anew for the timesteps that are skipped, and timesteps that include both ends."""

from dataclasses import dataclass

import numpy as np

from .base import CLIP_OPTIONS, Schedule, Scheduler, split_variance
from .ddpm import learned_range_deviation
from .formulas import ONE, exp, log


class UnCLIPScheduler(Scheduler):
    """As diffusers' class, called as its prior pipeline calls it: each step leads to the next timestep of the run."""

    TAKES_VARIANCE = True
    OPTIONS = dict(
        num_train_timesteps=1000,
        variance_type="fixed_small_log",
        **CLIP_OPTIONS,
        prediction_type="epsilon",
        beta_schedule="squaredcos_cap_v2",
    )
    CHOICES = dict(
        variance_type=("fixed_small_log", "learned_range"),
        prediction_type=("epsilon", "sample"),
        beta_schedule=("squaredcos_cap_v2",),
    )

    def schedule(self, num_inference_steps):
        """A run of one step, which divides by zero in diffusers, goes from the last training timestep to the end."""
        count, last = self._check_steps(num_inference_steps), self.config["num_train_timesteps"] - 1
        if count == 1:
            timesteps = np.array([last])
        else:
            timesteps = (np.arange(count) * (last / (count - 1))).round()[::-1].astype(np.int64)
        return UnCLIPSchedule(self.config, self.alphas_cumprod, timesteps, self.betas)


@dataclass(frozen=True, eq=False)
class UnCLIPSchedule(Schedule):
    betas: np.ndarray

    def step(self, model_output, index, sample, noise, state=None):
        predicted_variance = None
        learned = self.config["variance_type"] == "learned_range"
        if learned:
            model_output, predicted_variance = split_variance(model_output, sample)
        timestep, previous = int(self.timesteps[index]), self._next_timestep(index)
        alpha_bar = self.alphas_cumprod[timestep]
        alpha_bar_previous = self.alphas_cumprod[previous] if previous >= 0 else ONE
        beta = self.betas[timestep] if previous == timestep - 1 else ONE - alpha_bar / alpha_bar_previous
        original = self._predict_original(model_output, sample, np.sqrt(alpha_bar), np.sqrt(ONE - alpha_bar))
        # The posterior's mean, arXiv 2006.11239, eq. 7.
        original_weight = np.sqrt(alpha_bar_previous) * beta / (ONE - alpha_bar)
        sample_weight = np.sqrt(ONE - beta) * (ONE - alpha_bar_previous) / (ONE - alpha_bar)
        mean = original_weight * original + sample_weight * sample
        if previous < 0:
            return mean, None
        log_small = log((ONE - alpha_bar_previous) / (ONE - alpha_bar) * beta)
        if learned:
            deviation = learned_range_deviation(predicted_variance, log_small, log(beta))
        else:
            deviation = exp(np.float32(0.5) * log_small)
        return mean + deviation * noise(), None
