"""Samplers in NumPy, one file a family, under diffusers' class names and short names for the command line."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..common.errors import UserError
from .base import Schedule as Schedule
from .base import Scheduler
from .consistency import LCMScheduler, TCDScheduler
from .ddim import DDIMScheduler
from .ddpm import DDPMScheduler
from .deis import DEISMultistepScheduler
from .dpm_solver import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler
from .euler import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from .heun import HeunDiscreteScheduler
from .pndm import PNDMScheduler
from .sa_solver import SASolverScheduler
from .unclip import UnCLIPScheduler
from .unipc import UniPCMultistepScheduler

# Short name -> class, and the options that it sets over the checkpoint's.
SHORT_NAMES: dict[str, tuple[type[Scheduler], dict[str, Any]]] = {
    "ddpm": (DDPMScheduler, {}),
    "ddim": (DDIMScheduler, {}),
    "unclip": (UnCLIPScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp-2m-sde": (DPMSolverMultistepScheduler, dict(algorithm_type="sde-dpmsolver++")),
    "dpmpp-3m": (DPMSolverMultistepScheduler, dict(solver_order=3)),
    "dpmpp-2s": (DPMSolverSinglestepScheduler, {}),
    "dpmpp-2s-sde": (DPMSolverSinglestepScheduler, dict(algorithm_type="sde-dpmsolver++")),
    "dpmpp-3s": (DPMSolverSinglestepScheduler, dict(solver_order=3)),
    "unipc": (UniPCMultistepScheduler, {}),
    "deis": (DEISMultistepScheduler, {}),
    "pndm": (PNDMScheduler, dict(skip_prk_steps=True)),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "tcd": (TCDScheduler, {}),
    "sa": (SASolverScheduler, {}),
}
SCHEDULERS = {cls.__name__: cls for cls, _ in SHORT_NAMES.values()}
# A sampler that has the option takes a noise grid as a suffix: dpmpp-2m-karras, unipc-exponential.
for _name, (_class, _options) in list(SHORT_NAMES.items()):
    for _grid in ("karras", "exponential"):
        if f"use_{_grid}_sigmas" in _class.OPTIONS:
            SHORT_NAMES[f"{_name}-{_grid}"] = (_class, {**_options, f"use_{_grid}_sigmas": True})

CHECKPOINT = "checkpoint"  # short name of the checkpoint's own sampler


def create(config):
    """The scheduler of a scheduler_config.json dict, by its _class_name; UserError for one that is not known."""
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise UserError(f"scheduler class {name!r} is not known; known are {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name].from_config(config)


def as_name(name):
    """`name`, if it is a short name or a class name; UserError for any other."""
    if name not in (CHECKPOINT, *SHORT_NAMES, *SCHEDULERS):
        raise UserError(f"scheduler {name!r} is not known; choose one of {', '.join(sorted([CHECKPOINT, *SHORT_NAMES]))}")
    return name


def describe(scheduler):
    """A scheduler as a dict of what JSON can hold, from which `create` makes it again.

    An option that is infinite by default (`lambda_min_clipped`) is left out: JSON has no infinity.
    """
    config = {"_class_name": scheduler.name}
    for option, value in scheduler.config.items():
        value = np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic, tuple)) else value
        if isinstance(value, float) and not math.isfinite(value):
            continue  # its default: no other value may be infinite
        if callable(value):
            raise UserError(f"{scheduler.name}: {option} is a function, which JSON cannot hold")
        config[option] = value
    return config


def create_by_name(name: str, base_config: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a short name or a diffusers class name, for a checkpoint whose own scheduler has `base_config`.

    The checkpoint's options that the class has too carry over (its betas and prediction type, above all); the others
    belong to the other class and are left out, and so are the kind and order of its solver.
    """
    if name == CHECKPOINT or name == base_config.get("_class_name"):
        return create(base_config)
    named: tuple[type[Scheduler], dict[str, Any]] = (
        SHORT_NAMES[name] if name in SHORT_NAMES else (SCHEDULERS[as_name(name)], {}))
    cls, options = named
    same = base_config.get("_class_name") == cls.__name__

    def carries_over(key, value):
        if same or key not in cls.OPTIONS:
            return key in cls.OPTIONS
        means_nothing_here = value is None and cls.OPTIONS[key] is not None
        return key != "solver_order" and key not in cls.kinds_of_solver and not means_nothing_here

    return cls(**{**{key: value for key, value in base_config.items() if carries_over(key, value)}, **options})
