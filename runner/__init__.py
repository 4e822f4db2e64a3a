"""Runs exported Kandinsky 2.2 bundles on MindSpore Lite, with NumPy around it.

    from kandinsky_mindir.runner import KandinskyV22CombinedPipeline

    pipeline = KandinskyV22CombinedPipeline.from_pretrained("bundle")
    pipeline("a cat", generator=0).images[0].save("cat.png")
"""

from .bundle import Bundle
from .errors import UserError
from .images import load_image, make_image_grid
from .noise import TorchGenerator
from .pipelines import KandinskyV22CombinedPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline
from .schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)

__all__ = [
    "Bundle",
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KandinskyV22CombinedPipeline",
    "KandinskyV22Pipeline",
    "KandinskyV22PriorPipeline",
    "LCMScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "TorchGenerator",
    "UnCLIPScheduler",
    "UniPCMultistepScheduler",
    "UserError",
    "load_image",
    "make_image_grid",
]
