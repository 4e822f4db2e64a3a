"""Where noise comes from.

A noise source is any object with `standard_normal(size)`. It is asked once for each tensor of noise, in the
reference's order and shape, and answers in its own precision; the result is cast to float32. So the noise of a seed
depends on the source alone: not on the compute type, the batch of a graph or the engine.
"""

import operator
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..common.errors import UserError
from .torch_generator import TorchGenerator


class NoiseSource(Protocol):
    def standard_normal(self, size) -> np.ndarray:
        """Independent normal numbers of mean 0 and variance 1, in the shape `size`."""


# Names for `--rng`: what each makes of a seed.
GENERATORS = {
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
    so that a picture made in a batch gets the noise it gets alone; anything else must have `standard_normal`.
    """
    if generator is None:
        return np.random.default_rng()
    if isinstance(generator, (list, tuple)):
        return _OnePerRow([source(item) for item in generator])
    if callable(getattr(generator, "standard_normal", None)):
        return generator
    if type(generator).__module__.partition(".")[0] == "torch":
        raise UserError("generator is a torch object: for the same noise pass TorchGenerator(seed)")
    if isinstance(generator, (int, np.integer)):
        return from_seed(generator)
    raise UserError(f"generator must be an integer seed or have standard_normal(size), not {generator!r}")


def draw(source: NoiseSource, shape: Sequence[int]) -> np.ndarray:
    """One tensor of noise, float32, of `shape`; the source is asked exactly once."""
    shape = tuple(shape)
    noise = np.asarray(source.standard_normal(shape))
    if noise.shape != shape or noise.dtype.kind != "f":
        raise UserError(f"generator {type(source).__name__} answered standard_normal({shape}) with {noise.dtype} "
                        f"of shape {noise.shape}: it must return floats of that shape")
    return noise.astype(np.float32)


class OneOfBatch:
    """The noise that picture `row` of `rows` gets of `source` when all are made in one batch: makes it again alone.

    A batch may have several parts of `rows` each, one after the other, as prompts and negative prompts are.
    """

    def __init__(self, source: NoiseSource, row: int, rows: int):
        self._source, self._row, self._rows = source, row, rows

    def standard_normal(self, size) -> np.ndarray:
        parts, *rest = size
        noise = np.asarray(self._source.standard_normal((parts * self._rows, *rest)))
        return noise.reshape(parts, self._rows, *rest)[:, self._row]


class _OnePerRow:
    """A source for each row of the batch, as diffusers' `randn_tensor` reads a list of generators."""

    def __init__(self, sources: list[NoiseSource]):
        if not sources:
            raise UserError("generator is an empty list: give one generator for each picture")
        self._sources = sources

    def standard_normal(self, size) -> np.ndarray:
        rows, *rest = size
        if len(self._sources) == 1:  # one for the whole batch, as there
            return self._sources[0].standard_normal(size)
        if rows != len(self._sources):
            raise UserError(f"{len(self._sources)} generators for a batch of {rows}: give one for each picture")
        return np.concatenate([draw(source, (1, *rest)) for source in self._sources])
