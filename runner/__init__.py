"""Runs exported Kandinsky 2.2 bundles on MindSpore Lite, with NumPy around it.

    from kandinsky_mindir.runner import KandinskyV22CombinedPipeline

    pipeline = KandinskyV22CombinedPipeline.from_pretrained("bundle")
    pipeline("a cat", generator=0).images[0].save("cat.png")

Names are imported when they are first used: the command line answers --help without loading NumPy's users.
"""

from importlib import import_module

DISTRIBUTION = "kandinsky-mindir"

_NAMES = {
    "bundle.opened": ("Bundle",),
    "common.errors": ("UserError",),
    "pictures.images": ("load_image", "make_image_grid"),
    "diffusion.noise": ("TorchGenerator",),
    "request": ("InputPicture", "Item", "Request"),
    "pipelines.film": ("Film", "film_frames"),
    "pipelines": (
        "AutoPipelineForImage2Image",
        "AutoPipelineForInpainting",
        "AutoPipelineForText2Image",
        "KandinskyPriorPipeline",
        "KandinskyV22CombinedPipeline",
        "KandinskyV22ControlnetImg2ImgPipeline",
        "KandinskyV22ControlnetPipeline",
        "KandinskyV22Img2ImgCombinedPipeline",
        "KandinskyV22Img2ImgPipeline",
        "KandinskyV22InpaintCombinedPipeline",
        "KandinskyV22InpaintPipeline",
        "KandinskyV22Pipeline",
        "KandinskyV22PriorEmb2EmbPipeline",
        "KandinskyV22PriorPipeline",
    ),
    "schedulers": (
        "DDIMScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LCMScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
        "TCDScheduler",
        "UnCLIPScheduler",
        "UniPCMultistepScheduler",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)  # noqa: PLE0605


def __getattr__(name: str):
    if name == "__version__":  # of the installed package
        return import_module("importlib.metadata").version(DISTRIBUTION)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
