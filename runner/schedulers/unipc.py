"""UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework", arXiv 2302.04867, algorithms 5 to 8."""

import math

import numpy as np

from ..common.errors import UserError
from .base import BETA_OPTIONS, THRESHOLDING_OPTIONS
from .log_snr import LogSnrSchedule, LogSnrScheduler, combine
from .sigmas import FLOW_OPTIONS, GRID_OPTIONS, REFUSED_FLOW, REFUSED_GRIDS


class UniPCMultistepScheduler(LogSnrScheduler):
    """Each model call also corrects the sample that it was made for: one order more at no further call."""

    OPTIONS = dict(
        **BETA_OPTIONS,
        solver_order=2,
        prediction_type="epsilon",
        **THRESHOLDING_OPTIONS,
        predict_x0=True,
        solver_type="bh2",
        lower_order_final=True,
        disable_corrector=(),
        solver_p=None,
        **GRID_OPTIONS,
        **FLOW_OPTIONS,
        timestep_spacing="linspace",
        steps_offset=0,
        final_sigmas_type="zero",
        rescale_betas_zero_snr=False,
        sigma_min=None,
        sigma_max=None,
        shift_terminal=None,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        solver_order=(1, 2, 3, 4),
        prediction_type=("epsilon", "sample", "v_prediction"),
        solver_type=("bh1", "bh2"),
        timestep_spacing=("linspace", "leading", "trailing"),
        final_sigmas_type=("zero", "sigma_min"),
    )
    REFUSED = {
        **REFUSED_GRIDS,
        **REFUSED_FLOW,
        "solver_p": "another solver as predictor",
        "shift_terminal": "it is for models of flow matching",
    }
    FINAL_IS_LOWEST = True

    def __init__(self, **options):
        super().__init__(**options)
        if not self.config["predict_x0"] and self.config["final_sigmas_type"] == "zero":
            raise UserError(
                f"{self.name}: predict_x0 false divides by the final noise level; set final_sigmas_type to "
                '"sigma_min", or predict_x0 to true'
            )


class UniPCMultistepSchedule(LogSnrSchedule):
    def _step(self, model_output, index, sample, noise, state):
        """`state`: (predictions newest first, the sample that the last step started from, the last step's order)."""
        earlier, last_sample, last_order = state or ((), None, None)
        prediction = (self._data if self.config["predict_x0"] else self._noise)(model_output, index, sample)
        if earlier and index - 1 not in self.config["disable_corrector"]:
            sample = self._advance(last_sample, index - 1, earlier[:last_order], corrected_by=prediction)
        predictions = (prediction, *earlier)[: self.config["solver_order"]]
        order = min(len(predictions), self._order_limit(index))
        return self._advance(sample, index, predictions[:order]), (predictions, sample, order)

    def _order_limit(self, index):
        """Runs end in lower orders; a step to no noise at all, or to the noise that there is, has only the first."""
        left = len(self.timesteps) - index
        if left == 1 and self.sigmas[-1] in (0, self.sigmas[-2]):
            return 1
        return left if self.config["lower_order_final"] else len(self.timesteps)

    def _advance(self, sample, index, predictions, corrected_by=None):
        """The sample at `index` + 1 from `sample` at `index`.

        predictions: at `index` and before, as many as the order. corrected_by: the prediction at `index` + 1, which
        makes the predictor (UniP) a corrector (UniC).
        """
        data, order = self.config["predict_x0"], len(predictions)
        s, t = self.level(index), self.level(index + 1)
        h = t.lam - s.lam
        signed = -h if data else h
        rise = math.expm1(signed)
        scale, keep = (t.signal, t.noise / s.noise) if data else (t.noise, t.signal / s.signal)
        terms = [(keep, sample), (-scale * rise, predictions[0])]
        # B(h), eq. 12: the scale of all differences of predictions, D / r in the paper.
        step = signed if self.config["solver_type"] == "bh1" else rise
        ratios = [(self.level(index - i).lam - s.lam) / h for i in range(1, order)]
        differences = [(prediction - predictions[0]) / r for prediction, r in zip(predictions[1:], ratios)]
        if corrected_by is not None:
            ratios.append(1.0)
            differences.append(corrected_by - predictions[0])
        weights = _weights(ratios, signed, step) if differences else ()
        return combine(*terms, *((-scale * step * weight, d) for weight, d in zip(weights, differences)))


def _weights(ratios, h, step):
    """The weights of the differences, which meet the order conditions (eq. 10): a Vandermonde system in `ratios`.

    One difference alone has 1/2, which does not depend on h (section 3.2).
    """
    count = len(ratios)
    if count == 1:
        return [0.5]
    right, phi, factorial = [], math.expm1(h) / h - 1, 1
    for k in range(1, count + 1):
        right.append(phi * factorial / step)
        factorial *= k + 1
        phi = phi / h - 1 / factorial
    return [float(w) for w in np.linalg.solve(np.vander(ratios, increasing=True).T, right)]


UniPCMultistepScheduler.SCHEDULE = UniPCMultistepSchedule
