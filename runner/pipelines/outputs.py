"""What pipelines return: answers to names, to positions and to `**`, as diffusers' and mindone's users expect."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..request import Request


@dataclass(eq=False)
class Output:
    """Fields by name, by position and by unpacking; a mapping of names, too: ``decoder(**prior_output)``.

    Iteration gives the values, as of mindone's tuples; `keys` gives the names.
    """

    def to_tuple(self) -> tuple:
        return tuple(self.values())

    def keys(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self)]

    def values(self) -> list[Any]:
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.keys()]

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name) if name in self else default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.keys()

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def __len__(self) -> int:
        return len(dataclasses.fields(self))


@dataclass(eq=False)
class KandinskyPriorPipelineOutput(Output):
    """image_embeds and negative_image_embeds: (N, E) float32."""

    image_embeds: np.ndarray
    negative_image_embeds: np.ndarray


@dataclass(eq=False)
class MixEmbeddings(Output):
    """What a mix is made of: item_embeds (items, N, E) and negative_image_embeds (N, E), float32."""

    item_embeds: np.ndarray
    negative_image_embeds: np.ndarray


@dataclass(eq=False)
class ImagePipelineOutput(Output):
    """images: a list of PIL pictures, or an array (N, H, W, 3) in [0, 1], or latents (N, C, h, w)."""

    images: Any


class Picture(NamedTuple):
    """A finished picture. row: its number among those that were asked for. request: makes it again, alone; None where the
    noise came from a generator that a request cannot name."""

    image: Any
    row: int
    request: Request | None
