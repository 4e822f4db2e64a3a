"""A part's checkpoint tensors with what LoRAs add to them: the sum in float64, rounded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runner.bundle.checked_files import sha256_of
from ...runner.common.errors import UserError
from ..checkpoint.safetensors_reader import TensorFiles
from ..checkpoint.tensor_names import current_name
from .adapter import Adapter, Given, changed_parts
from .spelling import PARTS, Modules

WEIGHT = ".weight"
RECORD = "lora"  # of Manifest.source: which LoRAs are in a bundle's weights
FLOAT32 = "F32"  # as safetensors calls the type of a sum


def weights_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Module -> shape of its weight, of the tensors whose weights can be changed: of linear layers and convolutions."""
    return {name.removesuffix(WEIGHT): tuple(shape) for name, shape in shapes.items()
            if name.endswith(WEIGHT) and len(shape) in (2, 4)}


def read_adapters(loras: Iterable[Given], tensors: Mapping[str, TensorFiles]) -> list[Adapter]:
    """The LoRA files, matched to a checkpoint. tensors: of its parts. UserError as of Adapter."""
    modules = Modules({
        part: weights_of({current_name(part, name): shape for name, shape in tensors[part].shapes.items()})
        for part in PARTS if part in tensors
    })
    return [Adapter(given, modules) for given in loras]


def total(adapters: Iterable[Adapter], part: str, module: str) -> np.ndarray:
    """What those that change a module add to its weight, float64, in the checkpoint's layout."""
    first, *others = (adapter.delta(part, module) for adapter in adapters if (part, module) in adapter.pairs)
    return sum(others, start=first)


def added(weight: np.ndarray, delta: np.ndarray, name: str) -> np.ndarray:
    """weight + delta, rounded to float32 once. UserError, which names the tensor, if that is not finite."""
    with np.errstate(over="ignore"):
        result = (weight.astype(np.float64) + delta).astype(np.float32)
    if not np.isfinite(result).all():
        raise UserError(f"tensor {name!r} is not finite with the LoRAs added: choose smaller scales")
    return result


class MergedTensors:
    """A part's TensorFiles, as `resolve` reads them, with LoRAs added."""

    def __init__(self, part: str, tensors: TensorFiles, adapters: Sequence[Adapter]):
        self._part, self._tensors = part, tensors
        self._adapters = [adapter for adapter in adapters if part in changed_parts([adapter])]
        self._modules = {module for adapter in self._adapters for other, module in adapter.pairs if other == part}
        self.path, self.shapes, self.check_type = tensors.path, tensors.shapes, tensors.check_type
        self.types = {name: FLOAT32 if self._module(name) in self._modules else dtype for name, dtype in tensors.types.items()}
        self.files: tuple[Path, ...] = (*tensors.files, *(adapter.path for adapter in self._adapters))

    @property
    def scales(self) -> list[Any]:
        """What of the LoRAs decides the tensors, beside their files."""
        return [(str(adapter.path), adapter.given.scale) for adapter in self._adapters]

    def read(self, name: str) -> np.ndarray:
        array = self._tensors.read(name)
        module = self._module(name)
        if module not in self._modules:
            return array
        return added(array, total(self._adapters, self._part, module), name)

    def _module(self, name: str) -> str:
        return current_name(self._part, name).removesuffix(WEIGHT)


def record(adapters: Iterable[Adapter]) -> str:
    """One line for the manifest that says which LoRAs were added."""
    return "; ".join(f"{adapter.path.name} (sha256 {sha256_of(adapter.path)}), scale {adapter.given.scale:g}, {summary(adapter)}"
                     for adapter in adapters)


def summary(adapter: Adapter) -> str:
    """How many modules of which part a LoRA changes."""
    parts = changed_parts([adapter])
    return " and ".join(f"{sum(part == other for other, _ in adapter.pairs)} modules of the {part}" for part in parts)
