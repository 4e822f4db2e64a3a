"""The right to use a model: while it lasts, the model stays in memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .owner import Held, Key, Owner, Way

Runner = Callable[..., tuple[np.ndarray, ...]]  # over the inputs of a graph, by name; gives its outputs in order


class Lease:
    """A context manager that gives the function `run` over a graph, which is loaded while the block lasts.

    keepers: numbers of those for whom the model stays afterwards. ways: how the graph can be loaded (see `Owner.lease`).
    """

    def __init__(self, owner: Owner, key: Key, keepers: Sequence[int], ways: Callable[[], Sequence[Way]]):
        self._owner, self._key, self._keepers, self._ways = owner, key, keepers, ways
        self._number = next(owner.numbers)
        self._held: Held | None = None
        weakref.finalize(self, owner.give_back, self._number).atexit = False  # should an exception come before the block

    def __enter__(self) -> Runner:
        self._held = self._owner.lease(self._key, self._number, self._keepers, self._ways)
        return self.run

    def __exit__(self, *_: Any) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._owner.release(held, self._number)

    def run(self, **inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The graph's outputs. TypeError for an input that it has not, or lacks; else as LiteModel.run."""
        held = self._held
        if held is None or held.model is None:
            raise RuntimeError(f"{self._key.graph.name} is not leased any more")
        names = [tensor.name for tensor in held.model.inputs]
        if wrong := inputs.keys() ^ set(names):
            verb = "has no" if wrong & inputs.keys() else "lacks the"
            raise TypeError(f"{self._key.graph.name} {verb} input {', '.join(sorted(wrong & inputs.keys() or wrong))}")
        try:
            return tuple(held.model.run([np.ascontiguousarray(inputs[name]) for name in names]))
        finally:
            if not held.model.usable:
                self._owner.give_up(held)


class Alternating:
    """A context manager that gives a function from a name and a batch to the graph, for a block that changes between graphs.

    One of them is leased at a time. Those of before stay in memory until the block ends, as long as nothing needs their
    room. lease: makes the lease of a graph whose model stays for those keepers.
    """

    def __init__(self, owner: Owner, lease: Callable[[str, int, Sequence[int]], Lease]):
        self._owner, self._lease = owner, lease
        self._keeper = next(owner.numbers)
        self._named: tuple[str, int] | None = None
        self._current: tuple[Lease, Runner] | None = None
        weakref.finalize(self, owner.give_back, self._keeper).atexit = False

    def __enter__(self) -> Callable[[str, int], Runner]:
        return self._at

    def __exit__(self, *_: Any) -> None:
        self._let_go()
        self._owner.give_back(self._keeper)

    def _at(self, name: str, batch: int) -> Runner:
        if self._current is None or self._named != (name, batch):
            self._let_go()
            following = self._lease(name, batch, (self._keeper,))
            self._named, self._current = (name, batch), (following, following.__enter__())
        return self._current[1]

    def _let_go(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current[0].__exit__(None, None, None)
