"""SA-Solver: Xue et al., "SA-Solver: Stochastic Adams Solver", arXiv 2309.05019, algorithm 1."""

import math

from ..common.errors import UserError
from .adams import lagrange_weights, moments
from .base import BETA_OPTIONS, THRESHOLDING_OPTIONS
from .log_snr import LogSnrSchedule, LogSnrScheduler, combine
from .sigmas import FLOW_OPTIONS, GRID_OPTIONS, REFUSED_FLOW, REFUSED_GRIDS


def _noisy_middle(timestep):
    """tau of diffusers' default: as much noise as DDPM in the middle of the process, none at its ends."""
    return 1.0 if 200 <= timestep <= 800 else 0.0


class SASolverScheduler(LogSnrScheduler):
    """A stochastic predictor (Adams-Bashforth) and corrector (Adams-Moulton); tau_func(timestep) scales the noise."""

    OPTIONS = dict(
        **BETA_OPTIONS,
        predictor_order=2,
        corrector_order=2,
        prediction_type="epsilon",
        tau_func=None,
        **THRESHOLDING_OPTIONS,
        algorithm_type="data_prediction",
        lower_order_final=True,
        **GRID_OPTIONS,
        **FLOW_OPTIONS,
        lambda_min_clipped=-math.inf,
        variance_type=None,
        timestep_spacing="linspace",
        steps_offset=0,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        predictor_order=(1, 2, 3, 4),
        corrector_order=(1, 2, 3, 4),
        prediction_type=("epsilon", "sample", "v_prediction"),
        algorithm_type=("data_prediction", "noise_prediction"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )
    REFUSED = {**REFUSED_GRIDS, **REFUSED_FLOW}
    FINAL_IS_LOWEST = True

    def __init__(self, **options):
        super().__init__(**options)
        tau_func = self.config["tau_func"]
        if tau_func is not None and not callable(tau_func):
            raise UserError(f"{self.name}: tau_func is {tau_func!r}; it must be a function of a timestep")


class SASolverSchedule(LogSnrSchedule):
    def _step(self, model_output, index, sample, noise, state):
        """`state`: (predictions newest first, the sample and noise of the last step, its corrector's order)."""
        earlier, last_sample, last_noise, corrector_order = state or ((), None, None, None)
        config = self.config
        data = config["algorithm_type"] == "data_prediction"
        prediction = (self._data if data else self._noise)(model_output, index, sample)
        predictions = (prediction, *earlier)
        if earlier:
            sample = self._advance(last_sample, index - 1, predictions[:corrector_order], index, last_noise)
        left = len(self.timesteps) - index if config["lower_order_final"] else math.inf
        kept = max(config["predictor_order"], config["corrector_order"] - 1)
        known = min(len(earlier), kept)
        fresh = noise()
        order = min(config["predictor_order"], left, known + 1)
        following = self._advance(sample, index, predictions[:order], index, fresh)
        corrector_order = min(config["corrector_order"], left + 1, known + 2)
        return following, (predictions[:kept], sample, fresh, corrector_order)

    def _advance(self, sample, index, predictions, newest, noise):
        """The sample at `index` + 1 from `sample` at `index` (eq. 14 and 17, with data or noise predictions).

        predictions: at `newest` and before, one for each order; `newest` is `index` + 1 in a corrector.
        """
        order, data = len(predictions), self.config["algorithm_type"] == "data_prediction"
        s, t = self.level(index), self.level(index + 1)
        h = t.lam - s.lam
        tau = (self.config["tau_func"] or _noisy_middle)(int(self.timesteps[index]))
        rate = 1 + tau**2
        integrals = moments(order, rate if data else -1.0, h)
        if data:
            scale, keep = rate * t.signal, math.exp(-(tau**2) * h) * t.noise / s.noise
            spread = t.noise * math.sqrt(-math.expm1(-2 * tau**2 * h))
            integrals = [math.exp(-rate * h) * value for value in integrals]
            if order == 2:
                integrals[1] = h * h / 2  # its leading term: what the authors' code has for this order
        else:
            scale, keep = -rate * t.noise * math.exp(h), t.signal / s.signal
            spread = tau * t.noise * math.sqrt(math.expm1(2 * h))
        nodes = [self.level(newest - i).lam - s.lam for i in range(order)]
        weights = lagrange_weights(nodes, integrals)
        terms = [(scale * weight, prediction) for weight, prediction in zip(weights, predictions)]
        return combine((keep, sample), *terms, (spread, noise))


SASolverScheduler.SCHEDULE = SASolverSchedule
