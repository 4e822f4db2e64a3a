"""DEIS: Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", arXiv 2204.13902."""

from .adams import lagrange_weights, moments
from .base import BETA_OPTIONS, THRESHOLDING_OPTIONS
from .log_snr import LogSnrSchedule, LogSnrScheduler, combine
from .sigmas import FLOW_OPTIONS, GRID_OPTIONS, REFUSED_FLOW, REFUSED_GRIDS


class DEISMultistepScheduler(LogSnrScheduler):
    """tAB-DEIS in log rho (section 4): Adams-Bashforth steps of the noise, extrapolated in log sigma."""

    OPTIONS = dict(
        **BETA_OPTIONS,
        solver_order=2,
        prediction_type="epsilon",
        **THRESHOLDING_OPTIONS,
        algorithm_type="deis",
        solver_type="logrho",
        lower_order_final=True,
        **GRID_OPTIONS,
        **FLOW_OPTIONS,
        timestep_spacing="linspace",
        steps_offset=0,
    )
    CHOICES = dict(
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
        solver_order=(1, 2, 3),
        prediction_type=("epsilon", "sample", "v_prediction"),
        algorithm_type=("deis",),
        solver_type=("logrho",),
        timestep_spacing=("linspace", "leading", "trailing"),
    )
    REFUSED = {**REFUSED_GRIDS, **REFUSED_FLOW}
    FINAL_IS_LOWEST = True


class DEISMultistepSchedule(LogSnrSchedule):
    def _step(self, model_output, index, sample, noise, state):
        """`state`: the predicted noises of the latest calls, newest first."""
        predictions = (self._noise(model_output, index, sample), *(state or ()))[: self.config["solver_order"]]
        left = len(self.timesteps) - index
        few = self.config["lower_order_final"] and len(self.timesteps) < 15
        order = min(len(predictions), left if few and left < 3 else 3)
        s, t = self.level(index), self.level(index + 1)
        # d(x / alpha) = epsilon d(rho): epsilon is a polynomial of v = log(rho / rho_s), and rho = rho_s exp(v).
        nodes = [s.lam - self.level(index - i).lam for i in range(order)]
        weights = lagrange_weights(nodes, moments(order, 1.0, s.lam - t.lam))
        scale = t.signal * s.noise / s.signal
        terms = [(scale * weight, prediction) for weight, prediction in zip(weights, predictions)]
        return combine((t.signal / s.signal, sample), *terms), predictions


DEISMultistepScheduler.SCHEDULE = DEISMultistepSchedule
