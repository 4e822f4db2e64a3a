"""DDPM: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, algorithm 2."""

import numpy as np

from .base import BETA_OPTIONS, CLIP_OPTIONS, THRESHOLDING_OPTIONS, Schedule, Scheduler, split_variance
from .formulas import ONE, exp, log, spaced_timesteps


class DDPMScheduler(Scheduler):
    """Ancestral sampling of the reverse process, with a fixed or a learned variance; as diffusers' class."""

    TAKES_VARIANCE = True
    OPTIONS = dict(
        **BETA_OPTIONS,
        variance_type="fixed_small",
        **CLIP_OPTIONS,
        **THRESHOLDING_OPTIONS,
        prediction_type="epsilon",
        timestep_spacing="leading",
        steps_offset=0,
        rescale_betas_zero_snr=False,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"),
        variance_type=(
            "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"
        ),
        prediction_type=("epsilon", "sample", "v_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )

    def schedule(self, num_inference_steps):
        timesteps = spaced_timesteps(self.config, self._check_steps(num_inference_steps))
        return DDPMSchedule(self.config, self.alphas_cumprod, self._check_timesteps(timesteps))


class DDPMSchedule(Schedule):
    def step(self, model_output, index, sample, noise, state=None):
        variance_type, predicted_variance = self.config["variance_type"], None
        if variance_type in ("learned", "learned_range"):
            model_output, predicted_variance = split_variance(model_output, sample)
        previous = self._next_timestep(index)
        alpha_bar = self.alphas_cumprod[self.timesteps[index]]
        alpha_bar_previous = self.alphas_cumprod[previous] if previous >= 0 else ONE
        alpha = alpha_bar / alpha_bar_previous
        beta = ONE - alpha
        original = self._predict_original(model_output, sample, np.sqrt(alpha_bar), np.sqrt(ONE - alpha_bar))
        # The posterior's mean, eq. 7.
        original_weight = np.sqrt(alpha_bar_previous) * beta / (ONE - alpha_bar)
        sample_weight = np.sqrt(alpha) * (ONE - alpha_bar_previous) / (ONE - alpha_bar)
        mean = original_weight * original + sample_weight * sample
        if self.timesteps[index] == 0:
            return mean, None
        small = np.maximum((ONE - alpha_bar_previous) / (ONE - alpha_bar) * beta, np.float32(1e-20))
        return mean + _deviation(variance_type, small, beta, predicted_variance) * noise(), None


def _deviation(variance_type, small, large, predicted):
    """Standard deviation of the noise that a step adds.

    `small` and `large` are the two variances of section 3.2 (eq. 7 and beta itself); learned_range interpolates
    between their logarithms (Nichol and Dhariwal, arXiv 2102.09672, eq. 15). For fixed_large_log diffusers takes the
    square root of the logarithm, which is negative, so that its pictures are NaN; here it is the root of the variance.
    """
    if variance_type == "fixed_small":
        return np.sqrt(small)
    if variance_type == "fixed_small_log":
        return exp(np.float32(0.5) * log(small))
    if variance_type in ("fixed_large", "fixed_large_log"):
        return np.sqrt(large)
    if variance_type == "learned":
        return np.sqrt(predicted)
    return learned_range_deviation(predicted, log(small), log(large))


def learned_range_deviation(predicted, log_small, log_large):
    """exp of half the predicted log variance, `predicted` from -1 to 1 moving it from `log_small` to `log_large`."""
    fraction = (predicted + ONE) / np.float32(2)
    return exp(np.float32(0.5) * (fraction * log_large + (ONE - fraction) * log_small))
