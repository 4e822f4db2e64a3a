"""Samplers in NumPy, one file a family, under diffusers' class names and short names for the command line."""

from ..errors import UserError
from .base import Schedule, Scheduler
from .ddim import DDIMScheduler
from .ddpm import DDPMScheduler
from .unclip import UnCLIPScheduler

SCHEDULERS = {cls.__name__: cls for cls in (DDPMScheduler, DDIMScheduler, UnCLIPScheduler)}

# Short name -> class, and the options that it sets over the checkpoint's.
SHORT_NAMES = {
    "ddpm": (DDPMScheduler, {}),
    "ddim": (DDIMScheduler, {}),
}


def create(config):
    """The scheduler of a scheduler_config.json dict, by its _class_name; UserError for one that is not known."""
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise UserError(f"scheduler class {name!r} is not known; known are {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name].from_config(config)


def create_by_name(name, base_config):
    """The scheduler of a short name or a diffusers class name, for a checkpoint whose own scheduler has `base_config`.

    The checkpoint's options that the class has too carry over (its betas and prediction type, above all); the others
    belong to the other class and are left out.
    """
    if name in SHORT_NAMES:
        cls, options = SHORT_NAMES[name]
    elif name in SCHEDULERS:
        cls, options = SCHEDULERS[name], {}
    else:
        raise UserError(f"scheduler {name!r} is not known; choose one of {', '.join(SHORT_NAMES)}")
    carried = {key: value for key, value in base_config.items() if key in cls.OPTIONS}
    return cls(**{**carried, **options})
