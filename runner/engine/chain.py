"""A graph in pieces: models that run one after another, joined by the names of their tensors, as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext

import numpy as np

from .interface import EngineError, LiteModel, TensorSpec, check_arrays


class Chain:
    """Models in order of execution, as one LiteModel (see interface.py), which owns them.

    pieces: models, or functions that load one: such a piece is in memory only while its turn lasts, in each run.
    inputs, outputs: what the whole takes and gives. An output of a piece is known by its name to those after it; running
    gives an EngineError if a piece takes, or the whole gives, what none before gives.
    """

    def __init__(
        self, pieces: Sequence[LiteModel | Callable[[], LiteModel]], inputs: Iterable[TensorSpec],
        outputs: Iterable[TensorSpec],
    ):  # fmt: skip
        self._pieces = tuple(pieces)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._taken: list[set[TensorSpec]] = []  # by each piece, known once it has run
        self._lock = threading.Lock()

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        check_arrays(self.inputs, arrays)
        known = dict(zip(self.inputs, arrays))
        with self._lock:
            for index, piece in enumerate(self._pieces):
                with _loaded(piece) as model:
                    known |= zip(model.outputs, model.run(_pick(model.inputs, known)))
                    self._taken[index:] = self._taken[index:] or [set(model.inputs)]
                if len(self._taken) == len(self._pieces):  # what nobody takes any more is freed
                    later = set(self.outputs).union(*self._taken[index + 1 :])
                    known = {tensor: array for tensor, array in known.items() if tensor in later}
        return _pick(self.outputs, known)

    def close(self) -> None:
        with self._lock:
            for piece in self._pieces:
                if not callable(piece):
                    piece.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _loaded(piece: LiteModel | Callable[[], LiteModel]) -> AbstractContextManager[LiteModel]:
    return closing(piece()) if callable(piece) else nullcontext(piece)


def _pick(tensors: Iterable[TensorSpec], known: Mapping[TensorSpec, np.ndarray]) -> list[np.ndarray]:
    for tensor in tensors:
        if tensor not in known:
            raise EngineError(f"a piece of a graph takes {tensor}, which no piece before it gives: export again")
    return [known[tensor] for tensor in tensors]
