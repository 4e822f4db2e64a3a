"""Where noise comes from.

A noise source is any object with `standard_normal(size)`. It is asked once for each tensor of noise, in the
reference's order and shape, and answers in its own precision; the result is cast to float32. So the noise of a seed
depends on the source alone: not on the compute type, the batch of a graph or the engine.
"""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..common.errors import UserError
from .torch_generator import TorchGenerator


class NoiseSource(Protocol):
    def standard_normal(self, size) -> np.ndarray:
        """Independent normal numbers of mean 0 and variance 1, in the shape `size`."""


# Names for `--rng`: what each makes of a seed.
GENERATORS: dict[str, Callable[[int], NoiseSource]] = {
    "numpy": np.random.default_rng,  # Generator(PCG64(seed)), as mindone's users write it
    "numpy-legacy": np.random.RandomState,
    "torch": TorchGenerator,  # torch.Generator().manual_seed(seed) on the CPU, as diffusers' users write it
}


def from_seed(seed: int, kind: str = "numpy") -> NoiseSource:
    """The source of that kind (a key of GENERATORS) for a seed; UserError when the kind does not take the seed."""
    if kind not in GENERATORS:
        raise UserError(f"unknown random generator {kind!r}: choose from {', '.join(GENERATORS)}")
    try:
        if isinstance(seed, bool):
            raise TypeError
        return GENERATORS[kind](operator.index(seed))
    except UserError:
        raise
    except TypeError:
        raise UserError(f"seed must be an integer, not {seed!r}") from None
    except ValueError as error:
        raise UserError(f"seed {seed} does not suit the generator {kind!r}: {error}") from None


def source(generator=None) -> NoiseSource:
    """`generator=` of the pipelines as a noise source.

    None is fresh entropy; an int is a seed for `numpy.random.default_rng`; a list holds one generator for each picture,
    so that a picture made in a batch gets the noise it gets alone; a torch.Generator draws as in torch, where it lives;
    anything else must have `standard_normal`.
    """
    if generator is None:
        return np.random.default_rng()
    if isinstance(generator, (list, tuple)):
        return _OnePerRow([source(item) for item in generator])
    if callable(getattr(generator, "standard_normal", None)):
        return generator
    if type(generator).__module__.partition(".")[0] == "torch":
        if type(generator).__name__ != "Generator":
            raise UserError("generator is a torch object, and no generator: pass torch.Generator().manual_seed(seed)")
        return _OfTorch(generator)
    if isinstance(generator, (int, np.integer)):
        return from_seed(generator)  # type: ignore[arg-type]  # it looks at the type, too
    raise UserError(f"generator must be an integer seed or have standard_normal(size), not {generator!r}")


def draw(source: NoiseSource, shape: Sequence[int]) -> np.ndarray:
    """One tensor of noise, float32, of `shape`; the source is asked exactly once."""
    shape = tuple(shape)
    noise = np.asarray(source.standard_normal(shape))
    if noise.shape != shape or noise.dtype.kind != "f":
        raise UserError(f"generator {type(source).__name__} answered standard_normal({shape}) with {noise.dtype} "
                        f"of shape {noise.shape}: it must return floats of that shape")
    return noise.astype(np.float32)


class RowsOfBatch:
    """The noise that pictures `start` to `stop` of `rows` get of `source` when all are made in one batch.

    A batch may have several parts of `rows` each, one after the other, as prompts and negative prompts are.
    """

    def __init__(self, source: NoiseSource, start: int, stop: int, rows: int):
        self.source, self._start, self._stop, self._rows = source, start, stop, rows
        self.asked = False

    def standard_normal(self, size) -> np.ndarray:
        self.asked = True
        asked, *rest = size
        parts = asked // (self._stop - self._start)
        noise = draw(self.source, (parts * self._rows, *rest))
        return noise.reshape(parts, self._rows, *rest)[:, self._start : self._stop].reshape(size)


class OneOfBatch(RowsOfBatch):
    """The noise of picture `row` of `rows`: makes it again alone."""

    def __init__(self, source: NoiseSource, row: int, rows: int):
        super().__init__(source, row, row + 1, rows)


class SharedBatch:
    """A batch of `rows` pictures that is made group by group, with the noise that it has when it is made at once.

    The first group asks `source` for the noise of the whole batch, in the order of one run. The others ask a copy of the
    source as it was before that; where none can be made, what it gave is remembered.
    """

    def __init__(self, source: NoiseSource, rows: int):
        self._source, self._rows = source, rows
        self._group: RowsOfBatch | None = None
        self._next = source if _has_copies(source) else _Remembered(source)

    def group(self, start: int, stop: int) -> NoiseSource:
        """The noise of pictures `start` to `stop`. A group draws all of its noise before the next is asked for."""
        if stop - start == self._rows:
            return self._source
        source, self._next = self._next, copy.deepcopy(self._next)
        self._group = RowsOfBatch(source, start, stop, self._rows)
        return self._group

    @property
    def asked(self) -> bool:
        """Whether the group before has asked for noise."""
        return self._group is not None and self._group.asked


def _has_copies(source: NoiseSource) -> bool:
    """Whether a copy of `source` gives what it gives, without changing it."""
    if isinstance(source, _OnePerRow):
        return all(map(_has_copies, source.sources))
    if isinstance(source, RowsOfBatch):
        return _has_copies(source.source)
    return type(source) in (np.random.Generator, np.random.RandomState, TorchGenerator)


class _Remembered:
    """What `source` gave, in order; a copy gives the same from its start and goes on from there."""

    def __init__(self, source: NoiseSource, given: list[np.ndarray] | None = None):
        self._source, self._given, self._next = source, [] if given is None else given, 0

    def __deepcopy__(self, memo) -> _Remembered:
        return _Remembered(self._source, self._given)

    def standard_normal(self, size) -> np.ndarray:
        if self._next == len(self._given):
            self._given.append(draw(self._source, size))
        self._next += 1
        return self._given[self._next - 1]


class _OfTorch:
    """The numbers of a torch.Generator, which goes on from call to call as it does in diffusers. Whoever has one has torch."""

    def __init__(self, generator: Any):
        self._generator, self._torch = generator, sys.modules["torch"]

    def standard_normal(self, size) -> np.ndarray:
        options = {"device": self._generator.device, "dtype": self._torch.float32}
        return self._torch.randn(tuple(size), generator=self._generator, **options).cpu().numpy()


class _OnePerRow:
    """A source for each row of the batch, as diffusers' `randn_tensor` reads a list of generators."""

    def __init__(self, sources: list[NoiseSource]):
        if not sources:
            raise UserError("generator is an empty list: give one generator for each picture")
        self.sources = sources

    def standard_normal(self, size) -> np.ndarray:
        rows, *rest = size
        if len(self.sources) == 1:  # one for the whole batch, as there
            return self.sources[0].standard_normal(size)
        if rows != len(self.sources):
            raise UserError(f"{len(self.sources)} generators for a batch of {rows}: give one for each picture")
        return np.concatenate([draw(source, (1, *rest)) for source in self.sources])
