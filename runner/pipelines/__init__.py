"""The face that diffusers' users know: the pipelines of Kandinsky 2.2, by their names, arguments and defaults.

Differences are few: arrays are NumPy float32; `generator` is a ``numpy.random.Generator``, an int seed, a
``torch.Generator`` or any object with ``standard_normal(size)``; an argument left at None takes the default that travels in
the bundle.
"""

from .combined import AutoPipelineForImage2Image as AutoPipelineForImage2Image
from .combined import AutoPipelineForInpainting as AutoPipelineForInpainting
from .combined import AutoPipelineForText2Image as AutoPipelineForText2Image
from .combined import KandinskyV22CombinedPipeline as KandinskyV22CombinedPipeline
from .combined import KandinskyV22Img2ImgCombinedPipeline as KandinskyV22Img2ImgCombinedPipeline
from .combined import KandinskyV22InpaintCombinedPipeline as KandinskyV22InpaintCombinedPipeline
from .controlnet import KandinskyV22ControlnetImg2ImgPipeline as KandinskyV22ControlnetImg2ImgPipeline
from .controlnet import KandinskyV22ControlnetPipeline as KandinskyV22ControlnetPipeline
from .decoder import KandinskyV22Pipeline as KandinskyV22Pipeline
from .emb2emb import KandinskyV22PriorEmb2EmbPipeline as KandinskyV22PriorEmb2EmbPipeline
from .img2img import KandinskyV22Img2ImgPipeline as KandinskyV22Img2ImgPipeline
from .inpaint import KandinskyV22InpaintPipeline as KandinskyV22InpaintPipeline
from .prior import KandinskyV22PriorPipeline as KandinskyV22PriorPipeline

KandinskyPriorPipeline = KandinskyV22PriorPipeline  # 2.1's name, which mindone's pages use for 2.2's prior
