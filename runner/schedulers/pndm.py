"""PNDM: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778."""

from dataclasses import dataclass

import numpy as np

from ..common.errors import UserError
from .base import BETA_OPTIONS, PreciseSchedule, Scheduler
from .formulas import ONE, spaced_timesteps

_ADAMS_BASHFORTH = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class PNDMScheduler(Scheduler):
    """As diffusers' class: three pseudo Runge-Kutta steps of four calls (eq. 13), then linear multistep (eq. 12).

    skip_prk_steps: starts with one pseudo improved Euler step of two calls in place of the Runge-Kutta ones.
    """

    OPTIONS = dict(
        **BETA_OPTIONS,
        skip_prk_steps=False,
        set_alpha_to_one=False,
        prediction_type="epsilon",
        timestep_spacing="leading",
        steps_offset=0,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        prediction_type=("epsilon", "v_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )

    def schedule(self, num_inference_steps):
        count = self._check_steps(num_inference_steps)
        rising = self._check_timesteps(spaced_timesteps(self.config, count))[::-1]
        stride = self.config["num_train_timesteps"] // count
        if self.config["skip_prk_steps"]:
            timesteps, kutta_calls = np.concatenate([rising[:-1], rising[-2:-1], rising[-1:]])[::-1], 0
        elif count < 4:
            raise UserError(
                f"{self.name}: its Runge-Kutta start needs at least 4 steps, not {count}; set skip_prk_steps to true"
            )
        else:
            halves = rising[-4:].repeat(2) + np.tile([0, stride // 2], 4)
            kutta = halves[:-1].repeat(2)[1:-1][::-1]
            timesteps, kutta_calls = np.concatenate([kutta, rising[:-3][::-1]]), len(kutta)
        return PNDMSchedule(self.config, self.alphas_cumprod, timesteps.copy(), stride, kutta_calls)


@dataclass(frozen=True, eq=False)
class PNDMSchedule(PreciseSchedule):
    """stride: timesteps a step leads down. kutta_calls: how many calls the Runge-Kutta start takes."""

    stride: int
    kutta_calls: int

    def _step(self, model_output, index, sample, noise, state):
        """`state`: (model outputs at the ends of steps, newest first; the unfinished step's start and outputs)."""
        history, start, stages = state or ((), None, ())
        if index < self.kutta_calls:
            return self._kutta(model_output, index, sample, history, start, stages)
        return self._multistep(model_output, index, sample, history, start)

    def _kutta(self, model_output, index, sample, history, start, stages):
        stage = index % 4
        if stage == 0:
            start, history = sample, (model_output, *history)[:4]
        elif start is None:
            return sample, None  # a run that starts inside a step waits for the next one
        stages = (*stages, model_output)
        if stage == 3:
            model_output = sum(weight * output for weight, output in zip(_RUNGE_KUTTA, stages))
        timestep = int(self.timesteps[index - stage])
        following = int(self.timesteps[index]) - (0 if stage % 2 else self.stride // 2)
        sample = self._transfer(start, timestep, following, model_output)
        return sample, (history, None, ()) if stage == 3 else (history, start, stages)

    def _multistep(self, model_output, index, sample, history, start):
        timestep = int(self.timesteps[index])
        following = timestep - self.stride
        if self.kutta_calls == 0 and index == 1:
            if start is None:
                return sample, None  # a run that starts at the second call of a step waits for the next one
            # The second call of the improved Euler step: the mean of the slopes at its two ends, from its start.
            mean = (model_output + history[0]) / 2
            return self._transfer(start, timestep + self.stride, timestep, mean), (history, None, ())
        history = (model_output, *history)[:4]
        slope = sum(weight * output for weight, output in zip(_ADAMS_BASHFORTH[len(history) - 1], history))
        return self._transfer(sample, timestep, following, slope), (history, sample if index == 0 else None, ())

    def _transfer(self, sample, timestep, following, model_output):
        """Eq. 11: the sample at timestep `following`, from `sample` at `timestep` and the noise."""
        final = ONE if self.config["set_alpha_to_one"] else self.alphas_cumprod[0]
        alpha = self.alphas_cumprod[timestep]
        alpha_following = self.alphas_cumprod[following] if following >= 0 else final
        epsilon = self._predict_noise(model_output, sample, np.sqrt(alpha), np.sqrt(ONE - alpha))
        denominator = alpha * np.sqrt(ONE - alpha_following) + np.sqrt(alpha * (ONE - alpha) * alpha_following)
        keep = np.sqrt(alpha_following / alpha)
        return keep * sample - (alpha_following - alpha) * epsilon / denominator
