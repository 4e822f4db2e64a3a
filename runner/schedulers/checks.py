"""The options of samplers, each checked by its name, its choices and the type of its default."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.options import LARGEST

MOST_TIMESTEPS = 1_000_000  # and of any other count: of trained timesteps, of steps that a model was distilled on
# The least and the most of numbers that formulas divide by, take roots of, or use as a share.
RANGES = {
    "beta_end": (0, 1),
    "beta_start": (0, 1),
    "clip_sample_range": (0, LARGEST),
    "dynamic_thresholding_ratio": (0, 1),
    "eta": (0, 1000),
    "s_churn": (0, 1_000_000),
    "s_noise": (0, 1000),
    "s_tmin": (0, LARGEST),
    "s_tmax": (0, LARGEST),
    "sample_max_value": (1, LARGEST),
    "timestep_scaling": (0, 1_000_000),
}


def check_option(cls: Any, option: str, value: Any) -> None:
    """UserError unless the sampler `cls` can run with `value` for its option. Only a default may be infinite."""
    default = cls.OPTIONS[option]
    if option in cls.REFUSED:
        if type(value) is not type(default) or value != default:
            reason = cls.REFUSED[option]
            raise UserError(f"{cls.__name__}: {option} is not implemented ({reason}); leave it at {default!r}")
        return
    if option in cls.CHOICES:
        known = cls.CHOICES[option]
        plain = isinstance(value, (str, int, type(None)))  # not a list or an array, which do not compare to one value
        good, wanted = plain and value in known and not isinstance(value, bool), f"one of {', '.join(map(str, known))}"
    elif option == "disable_corrector":
        good, wanted = isinstance(value, (list, tuple)) and all(map(_is_whole, value)), "a list of indices of steps"
    elif option in ("sigma_min", "sigma_max"):
        good, wanted = value is None or (_is_number(value) and value > 0), "null or a number above 0"
    elif option == "trained_betas":
        good, wanted = value is None or _are_betas(value), "null or a list of numbers"
    elif isinstance(default, bool):
        good, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        least = 0 if option == "steps_offset" else 1
        good = _is_whole(value) and least <= value <= MOST_TIMESTEPS
        wanted = f"a whole number of at least {least}"
    elif isinstance(default, float):
        low, high = RANGES.get(option, (-LARGEST, LARGEST))
        good = (_is_number(value) and low <= value <= high) or (type(value) is float and value == default)
        wanted = f"a number from {low:g} to {high:g}" if option in RANGES else "a number"
    else:
        return
    if not good:
        raise UserError(f"{cls.__name__}: {option} is {_short(value)}; it must be {wanted}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST and math.isfinite(value)


def _are_betas(value: Any) -> bool:
    if not isinstance(value, (list, tuple, np.ndarray)) or np.ndim(np.asarray(value, dtype=object)) != 1:
        return False
    betas = (beta.item() if isinstance(beta, np.generic) else beta for beta in value)
    return 0 < len(value) <= MOST_TIMESTEPS and all(map(_is_number, betas))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
