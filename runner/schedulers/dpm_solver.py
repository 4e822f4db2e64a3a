"""DPM-Solver and DPM-Solver++, multistep and singlestep, as ODE and as SDE solvers.

Lu et al., "DPM-Solver", arXiv 2206.00927 (noise prediction; singlestep: algorithms 1 and 2), and "DPM-Solver++", arXiv
2211.01095 (data prediction; 2S: algorithm 1, 2M: algorithm 2; SDE: section 3.4 and appendix). Both write the step
as an exact linear part and an integral of the prediction, which is expanded in lambda around the step's start:
prediction = D0 + D1 u + D2 u^2 / 2, where u runs from 0 to 1 over the step.
"""

import math

from ..common.errors import UserError
from .base import BETA_OPTIONS, THRESHOLDING_OPTIONS
from .log_snr import LogSnrSchedule, LogSnrScheduler, combine
from .sigmas import FLOW_OPTIONS, GRID_OPTIONS, REFUSED_FLOW, REFUSED_GRIDS

_OPTIONS = dict(
    **BETA_OPTIONS,
    solver_order=2,
    prediction_type="epsilon",
    **THRESHOLDING_OPTIONS,
    algorithm_type="dpmsolver++",
    solver_type="midpoint",
    **GRID_OPTIONS,
    **FLOW_OPTIONS,
    final_sigmas_type="zero",
    lambda_min_clipped=-math.inf,
    variance_type=None,
)
_CHOICES = dict(
    beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
    solver_order=(1, 2, 3),
    prediction_type=("epsilon", "sample", "v_prediction"),
    solver_type=("midpoint", "heun"),
    final_sigmas_type=("zero", "sigma_min"),
)


class _DPMSolverScheduler(LogSnrScheduler):
    REFUSED = {
        **REFUSED_GRIDS,
        **REFUSED_FLOW,
        "use_lu_lambdas": "in diffusers it is the grid of use_exponential_sigmas: set that",
    }

    def __init__(self, **options):
        super().__init__(**options)
        algorithm = self.config["algorithm_type"]
        if not algorithm.endswith("++") and self.config["final_sigmas_type"] == "zero":
            raise UserError(
                f"{self.name}: algorithm_type {algorithm} divides by the final noise level; set final_sigmas_type to "
                '"sigma_min", or algorithm_type to "dpmsolver++"'
            )


class DPMSolverMultistepScheduler(_DPMSolverScheduler):
    """DPM-Solver++ 2M and its relatives: a step uses the predictions of up to `solver_order` - 1 earlier ones."""

    OPTIONS = dict(
        **_OPTIONS,
        lower_order_final=True,
        euler_at_final=False,
        use_lu_lambdas=False,
        timestep_spacing="linspace",
        steps_offset=0,
        rescale_betas_zero_snr=False,
    )
    CHOICES = dict(
        **_CHOICES,
        algorithm_type=("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
        timestep_spacing=("linspace", "leading", "trailing"),
    )

    def _rounds(self):
        return super()._rounds() and self.config["beta_schedule"] != "squaredcos_cap_v2"


class DPMSolverSinglestepScheduler(_DPMSolverScheduler):
    """DPM-Solver++ 2S and its relatives: steps come in groups of up to `solver_order` calls, which start anew."""

    OPTIONS = dict(**_OPTIONS, lower_order_final=False)
    CHOICES = dict(**_CHOICES, algorithm_type=("dpmsolver", "dpmsolver++", "sde-dpmsolver++"))


class _DPMSolverSchedule(LogSnrSchedule):
    def _prediction(self, model_output, index, sample):
        data = self.config["algorithm_type"].endswith("++")
        return (self._data if data else self._noise)(model_output, index, sample)

    def _advance(self, sample, start, end, derivatives, noise, expansion):
        """The sample at call `end`, from `sample` at call `start` and the prediction's `derivatives` D0, D1, D2.

        expansion: "exact" integrates u and u^2 against the exponential; "midpoint" takes u as 1/2, for D1 alone.
        The SDE's integral is the ODE's over twice the distance (`span`), with noise beside it.
        """
        algorithm = self.config["algorithm_type"]
        stochastic = algorithm.startswith("sde")
        s, t = self.level(start), self.level(end)
        h = t.lam - s.lam
        if algorithm.endswith("++"):
            span = 2 * h if stochastic else h
            rise = -math.expm1(-span)
            exact = (lambda: 1 - rise / span, lambda: 0.5 - (span - rise) / span**2)
            scale, keep = t.signal, t.noise / s.noise * (math.exp(-h) if stochastic else 1)
            spread = t.noise * math.sqrt(max(0, -math.expm1(-2 * h)))
        else:
            rise = math.expm1(h)
            exact = (lambda: rise / h - 1, lambda: (rise - h) / h**2 - 0.5)
            scale, keep = -t.noise * (2 if stochastic else 1), t.signal / s.signal
            spread = t.noise * math.sqrt(max(0, math.expm1(2 * h)))
        weights = [rise, *(weight() for weight in exact[: len(derivatives) - 1])]
        if expansion == "midpoint" and len(derivatives) == 2:
            weights[1] = 0.5 * rise
        terms = [(scale * weight, derivative) for weight, derivative in zip(weights, derivatives)]
        return combine((keep, sample), *terms, *([(spread, noise())] if stochastic else []))


class DPMSolverMultistepSchedule(_DPMSolverSchedule):
    def _step(self, model_output, index, sample, noise, state):
        """`state`: the predictions of the latest calls, newest first."""
        m0 = self._prediction(model_output, index, sample)
        predictions = (m0, *(state or ()))[: self.config["solver_order"]]
        order = min(len(predictions), self._order_limit(index))
        expansion = self.config["solver_type"] if order == 2 else "exact"
        derivatives = self._derivatives(predictions[:order], index)
        return self._advance(sample, index, index + 1, derivatives, noise, expansion), predictions

    def _order_limit(self, index):
        """Few steps end in lower orders, and so does a step to no noise at all or to the noise that there is."""
        config, left = self.config, len(self.timesteps) - index
        few = config["lower_order_final"] and len(self.timesteps) < 15
        if left == 1 and (few or config["euler_at_final"] or self.sigmas[-1] in (0, self.sigmas[-2])):
            return 1
        return 2 if left == 2 and few else 3

    def _derivatives(self, predictions, index):
        """D0, D1, D2 from divided differences of the predictions at this call and those before it."""
        if len(predictions) == 1:
            return predictions
        lam = [self.level(index + 1 - i).lam for i in range(len(predictions) + 1)]
        h = lam[0] - lam[1]
        r = [(lam[i] - lam[i + 1]) / h for i in range(1, len(predictions))]
        slopes = [(predictions[i] - predictions[i + 1]) / r[i] for i in range(len(r))]
        if len(r) == 1:
            return predictions[0], slopes[0]
        # The parabola through the predictions has twice this for D2. The authors' code has it so, and diffusers and
        # this class with it: it costs the third order, not the second.
        bend = (slopes[0] - slopes[1]) / (r[0] + r[1])
        return predictions[0], slopes[0] + r[0] * bend, bend


class DPMSolverSinglestepSchedule(_DPMSolverSchedule):
    def _step(self, model_output, index, sample, noise, state):
        """`state`: (the sample that the group started from, the group's predictions so far, newest first)."""
        start, earlier = state or (None, ())
        m0 = self._prediction(model_output, index, sample)
        order = min(self._orders()[index], len(earlier) + 1)
        if order == 1:
            start, earlier = sample, ()
        predictions = (m0, *earlier)[:order]
        expansion = self.config["solver_type"]
        derivatives = self._derivatives(predictions, index, expansion)
        if order == 3:
            expansion = "exact"
        first = index - order + 1
        return self._advance(start, first, index + 1, derivatives, noise, expansion), (start, predictions)

    def _orders(self):
        """The order of each call: 1, 2, 3, 1, 2, 3 ..., with lower ones at the end (arXiv 2206.00927, appendix D)."""
        count, order = len(self.timesteps), self.config["solver_order"]
        zero = self.config["final_sigmas_type"] == "zero"
        orders = [i % order + 1 for i in range(count)]
        # diffusers ends low, asked or not, where groups do not fit the number of steps or the end has no noise.
        if order > 1 and (self.config["lower_order_final"] or zero or count % order):
            if order == 3 and count % 3 == 0:
                orders[-3:] = [1, 2, 1]
            orders[-1] = 1 if count % order != 2 or zero else 2
        return orders

    def _derivatives(self, predictions, index, expansion):
        """D0, D1, D2 from the predictions at this call and those before it in its group."""
        order = len(predictions)
        if order == 1:
            return predictions
        origin = self.level(index - order + 1).lam
        h = self.level(index + 1).lam - origin
        r = [(self.level(index - i).lam - origin) / h for i in range(order - 1)]
        slopes = [(predictions[i] - predictions[-1]) / r[i] for i in range(order - 1)]
        if order == 2 or expansion == "midpoint":
            return predictions[-1], slopes[0]
        first = (r[0] * slopes[1] - r[1] * slopes[0]) / (r[0] - r[1])
        return predictions[-1], first, 2 * (slopes[0] - slopes[1]) / (r[0] - r[1])


DPMSolverMultistepScheduler.SCHEDULE = DPMSolverMultistepSchedule
DPMSolverSinglestepScheduler.SCHEDULE = DPMSolverSinglestepSchedule
