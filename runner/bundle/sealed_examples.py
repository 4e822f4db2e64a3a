"""Sealed examples: for a graph, inputs from a forward pass and what it must make of them, kept beside it in the bundle.

The exporter computes the values in float64 on a path of its own. It also computes them in float32: how far that is off
is what rounding costs this graph on these inputs, and a device may be off by a known multiple of it, not more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..common.errors import UserError
from .manifest import GraphInfo
from .mindir_archive import ASCEND
from .npz import read_arrays

OUTPUT_VALUES = 4096  # how many values of an output are kept
LAYER_VALUES = 8  # and of what a layer inside the graph computes, for `verify --bisect`

LARGEST_FLOAT16 = 65504.0
RANGE_LAYERS, RANGE_LARGEST = "range.layers", "range.largest"  # members of the file

UNIT = 2.0**-24  # half a unit in the last place of 1, float32
# How much more than NumPy's a correct float32 kernel may round. Winograd's F(4x4, 3x3), which Lite uses for
# convolutions, costs about ten times what a direct sum does (Lavin and Gray, "Fast Algorithms for Convolutional Neural
# Networks", 2016; Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution", 2020); sums in
# plain order, where BLAS and NumPy add blocks or pairs, and polynomials for exp and erf cost up to three times.
ROUNDING_FACTOR = 32


class Sample(NamedTuple):
    """Some values of a tensor (at `positions`), the root mean square of all, the relative error of float32."""

    values: np.ndarray
    rms: float
    rounding: float

    @classmethod
    def of(cls, exact: np.ndarray, rounded: np.ndarray, count: int) -> Sample:
        """A sample of at most `count` values of `exact`; `rounded` is the same tensor computed in float32."""
        rms = math.sqrt(np.mean(np.square(exact)))
        rounding = math.sqrt(np.mean(np.square(exact - rounded))) / (rms or 1.0)
        return cls(exact.reshape(-1)[positions(exact.size, count)].astype(np.float32), rms, rounding)

    @property
    def bound(self) -> float:
        """The largest relative error that rounding explains."""
        return ROUNDING_FACTOR * max(self.rounding, UNIT)

    def relative_error(self, actual: np.ndarray) -> float:
        """Root mean square of the differences over that of the tensor; infinite if `actual` holds no finite numbers."""
        if not np.isfinite(actual).all():
            return math.inf
        return self._difference(actual) / (self.rms or 1.0)

    def psnr(self, actual: np.ndarray) -> float:
        """Peak signal to noise ratio in dB; the peak is the range of the values."""
        peak, difference = float(np.ptp(self.values)), self._difference(actual)
        return 20 * math.log10(peak / difference) if peak and difference else math.inf

    def _difference(self, actual: np.ndarray) -> float:
        difference = actual.reshape(-1)[positions(actual.size, self.values.size)] - self.values.astype(np.float64)
        return math.sqrt(np.mean(np.square(difference)))


class SealedExample(NamedTuple):
    """A sealed example. inputs: by name; outputs: in the graph's order; layers: by the node's name in the MindIR.

    largest: of each layer, as parameters name it, the largest absolute value of all that it computes; of an older bundle
    nothing.
    """

    inputs: dict[str, np.ndarray]
    outputs: list[Sample]
    layers: dict[str, Sample]
    largest: Mapping[str, float] = MappingProxyType({})

    @property
    def beyond_float16(self) -> list[str]:
        """Layers with values that float16 has no room for: computed in it they would be infinite."""
        return [layer for layer, value in self.largest.items() if not value <= LARGEST_FLOAT16]

    def write(self, path: Path, inputs: bool = True) -> None:
        """inputs: whether the file has them, or another does."""
        samples = [*self.outputs, *self.layers.values()]
        named = {f"input.{name}": array for name, array in self.inputs.items()} if inputs else {}
        named[RANGE_LAYERS] = np.array(list(self.largest), np.str_)
        named[RANGE_LARGEST] = np.array(list(self.largest.values()), np.float32)
        np.savez_compressed(
            path,
            **named,  # type: ignore[arg-type]
            layers=np.array(list(self.layers), np.str_),
            sizes=np.array([sample.values.size for sample in samples], np.int32),
            values=np.concatenate([sample.values for sample in samples]),
            rms=np.array([sample.rms for sample in samples], np.float32),
            rounding=np.array([sample.rounding for sample in samples], np.float32),
        )

    @classmethod
    def read(cls, path: Path, inputs: Path | None = None) -> SealedExample:
        """inputs: the file that has them, if it is another. UserError if one is damaged."""
        file = read_arrays(path, ("layers", "sizes", "values", "rms", "rounding"))
        nothing = np.empty(0, np.float32)
        try:
            given = {key.removeprefix("input."): array for key, array in (read_arrays(inputs, ()) if inputs else file).items()
                     if key.startswith("input.")}
            values = np.split(file["values"], np.cumsum(file["sizes"])[:-1])
            samples = [Sample(*row) for row in zip(values, file["rms"].tolist(), file["rounding"].tolist(), strict=True)]
            layers = file["layers"].tolist()
            largest = dict(zip(file.get(RANGE_LAYERS, nothing).tolist(), file.get(RANGE_LARGEST, nothing).tolist(), strict=True))
        except (ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
        outputs = len(samples) - len(layers)
        return cls(given, samples[:outputs], dict(zip(layers, samples[outputs:])), largest)


def file_name(graph: GraphInfo) -> str:
    """The path of the graph's example inside its bundle, which serves all targets."""
    return f"{graph.mindir.removesuffix('.mindir').removesuffix(ASCEND)}.golden.npz"


def inputs_name(graph: GraphInfo) -> str:
    """The path of the file that has the example's inputs after a merge: the graph's example before it."""
    return file_name(graph).replace(".golden.npz", ".inputs.npz")


def positions(size: int, count: int) -> np.ndarray:
    """`count` places in a tensor of `size` values (or all), spread evenly: multiples of the example ratio, modulo 1."""
    if size <= count:
        return np.arange(size)
    return (np.arange(count) * ((math.sqrt(5) - 1) / 2) % 1 * size).astype(np.intp)
