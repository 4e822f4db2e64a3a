"""Image embeddings and a depth hint to pictures, and from a picture too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..diffusion.loop import finite
from .call import Given, Rows
from .decoder import READERS, KandinskyV22Pipeline
from .img2img import KandinskyV22Img2ImgPipeline, Pictures
from .outputs import ImagePipelineOutput


class KandinskyV22ControlnetPipeline(KandinskyV22Pipeline):
    """Image embeddings to pictures whose depth a hint gives.

    After diffusers 0.42.1, pipelines/kandinsky2_2/pipeline_kandinsky2_2_controlnet.py. Where that is lacking, it is whole
    here: hints are pictures or arrays of any size, one serves all pictures, and it works without guidance.
    """

    kind = "controlnet"
    unet = "controlnet_unet"
    maps = ("controlnet_map",)
    takes: tuple[str, ...] = ("hint",)

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        image_embeds: np.ndarray | list[np.ndarray],
        negative_image_embeds: np.ndarray | list[np.ndarray] | None = None,
        hint: Pictures | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Any = None,
        latents: np.ndarray | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        cache_interval: int = 1,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `image_embeds` (N, E) with the depth that `hint` shows, near bright: see `inputs.conditions.hints`.

        Others: as of `KandinskyV22Pipeline`.
        """
        return self._call(locals())

    def given(self, pictures: Mapping[str, Any], size: tuple[int, int]) -> Given:
        """The hint is eight times as large as the latents, whatever the MoVQ: the UNet's own layers make that of it."""
        shape = self.bundle.manifest.find(self.maps[0], 1, size).input("hint").shape
        sizes = {"image": size, "hint": (shape[2], shape[3])}
        return Given(**{name: READERS[name](pictures[name], sizes[name]) for name in self.takes})

    def _maps(self, rows: Rows, size: tuple[int, int]) -> list[np.ndarray]:
        assert rows.hint is not None  # it takes one
        known: dict[bytes, np.ndarray] = {}
        with self.models.lease("controlnet_map", 1, size) as run:
            for hint in rows.hint:
                if hint.tobytes() not in known:
                    (known[hint.tobytes()],) = finite("controlnet_map", run(hint=hint[None]))
        return [known[hint.tobytes()] for hint in rows.hint]


class KandinskyV22ControlnetImg2ImgPipeline(KandinskyV22ControlnetPipeline):
    """Image embeddings to pictures whose depth a hint gives, and that keep something of a picture.

    After diffusers 0.42.1, pipelines/kandinsky2_2/pipeline_kandinsky2_2_controlnet_img2img.py, and right where
    `KandinskyV22Img2ImgPipeline` and `KandinskyV22ControlnetPipeline` are.
    """

    takes = ("image", "hint")
    _first = KandinskyV22Img2ImgPipeline._first

    def __call__(  # type: ignore[override]  # as diffusers' own
        self,
        image_embeds: np.ndarray | list[np.ndarray],
        image: Pictures,
        negative_image_embeds: np.ndarray | list[np.ndarray] | None = None,
        hint: Pictures | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float = 0.3,
        num_images_per_prompt: int = 1,
        generator: Any = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        return_dict: bool = True,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        cache_interval: int = 1,
    ) -> ImagePipelineOutput | tuple:
        """Pictures of `image_embeds` (N, E) that start from `image` and have the depth that `hint` shows."""
        return self._call(locals())
