"""The face that diffusers' users know: the pipelines of Kandinsky 2.2, by their names, arguments and defaults.

Differences are few: arrays are NumPy float32; `generator` is a ``numpy.random.Generator``, an int seed or any object with
``standard_normal(size)``; an argument left at None takes the default that travels in the bundle.
"""

from .combined import KandinskyV22CombinedPipeline, KandinskyV22Img2ImgCombinedPipeline
from .decoder import KandinskyV22Pipeline
from .img2img import KandinskyV22Img2ImgPipeline
from .prior import KandinskyV22PriorPipeline

__all__ = [
    "KandinskyV22CombinedPipeline", "KandinskyV22Img2ImgCombinedPipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22Pipeline",
    "KandinskyV22PriorPipeline",
]  # fmt: skip
