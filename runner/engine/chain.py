"""A graph in pieces: models that run one after another, joined by the names of their tensors, as one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import Any

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
        self._taken: dict[int, set[TensorSpec]] = {}  # by the piece of that index, known once it has run
        self._owner = os.getpid()
        self._lock = threading.RLock()  # a signal handler may close a chain that the thread it interrupts is running

    @property
    def usable(self) -> bool:
        """Whether this process loaded the pieces that stay in memory, and all of them are usable."""
        return os.getpid() == self._owner and all(model.usable for model in self._resident)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        check_arrays(self.inputs, arrays)
        if os.getpid() != self._owner:  # a thread that is not in this process may hold the lock
            raise EngineError(f"a graph in pieces was loaded in process {self._owner}, from which this process "
                              f"({os.getpid()}) was forked: load it in this process")
        known = dict(zip(self.inputs, arrays))
        with self._lock:
            for index, piece in enumerate(self._pieces):
                with _loaded(piece) as model:
                    known |= zip(model.outputs, model.run(_pick(model.inputs, known)))
                    self._taken[index] = set(model.inputs)
                if len(self._taken) == len(self._pieces):  # what nobody takes any more is freed
                    later = set(self.outputs).union(*(self._taken[after] for after in range(index + 1, len(self._pieces))))
                    known = {tensor: array for tensor, array in known.items() if tensor in later}
        return _pick(self.outputs, known)

    def close(self) -> None:
        """Close every piece, even if closing one of them ends in an exception."""
        if os.getpid() == self._owner:
            with self._lock, ExitStack() as stack:
                for model in self._resident:
                    stack.callback(model.close)

    @property
    def _resident(self) -> list[LiteModel]:
        return [piece for piece in self._pieces if not callable(piece)]

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _loaded(piece: LiteModel | Callable[[], LiteModel]) -> AbstractContextManager[LiteModel]:
    return closing(piece()) if callable(piece) else nullcontext(piece)


def _pick(tensors: Iterable[TensorSpec], known: Mapping[TensorSpec, np.ndarray]) -> list[np.ndarray]:
    for tensor in tensors:
        if tensor not in known:
            raise EngineError(f"a piece of a graph takes {tensor}, which no piece before it gives: export again")
    return [known[tensor] for tensor in tensors]
