"""What pipelines return: answers to field names and to positions, as diffusers' and mindone's users expect."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np


class Output:
    """Fields by name, by position and by unpacking."""

    def to_tuple(self) -> tuple:
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def __getitem__(self, key: int | slice | str) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self):
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(dataclasses.fields(self))


@dataclass(eq=False)
class KandinskyPriorPipelineOutput(Output):
    """image_embeds and negative_image_embeds: (N, E) float32."""

    image_embeds: np.ndarray
    negative_image_embeds: np.ndarray


@dataclass(eq=False)
class ImagePipelineOutput(Output):
    """images: a list of PIL pictures, or an array (N, H, W, 3) in [0, 1], or latents (N, C, h, w)."""

    images: Any
