"""The owner of all Lite models of a process: who uses which, which stay in memory, and what must go to make room.

Pipelines on the same bundle share its models, and all pipelines share one budget. A model that nobody uses stays for those
who keep it, until its room is needed. A forked process has an owner without models: those of its parent live on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import NamedTuple

from ..bundle.manifest import GraphInfo
from ..common.errors import UserError
from ..common.locks import in_forked_child
from ..common.memory import as_text, available, in_use, private
from ..engine import Engine, LiteModel
from .footprint import PROGRAM, Footprint


class Source(NamedTuple):
    """What a model is of, but for its graph: those whose sources are equal share their models.

    bundle: its place and its seal, or the bundle itself. way: what else decides how it is loaded.
    """

    bundle: Hashable
    engine: Engine
    device: str
    threads: int
    way: tuple


class Key(NamedTuple):
    source: Source
    graph: GraphInfo


class Way(NamedTuple):
    """A way to load a graph: what it takes, and what does it."""

    footprint: Footprint
    load: Callable[[], LiteModel]


class Held:
    """A model in memory, or on its way there.

    size: bytes that it takes, or will. leases: the numbers of those that use it. keepers: of those for whom it stays when
    nobody does. used: the larger, the later it was used.
    """

    def __init__(self, key: Key):
        self.key, self.process = key, os.getpid()
        self.model: LiteModel | None = None
        self.size = self.used = 0
        self.leases: set[int] = set()
        self.keepers: set[int] = set()
        self.ended = threading.Event()  # its loading, well or not


class Owner:
    """See above. Any thread may call it, and a signal handler or a finalizer while the same thread is in it."""

    def __init__(self) -> None:
        self.numbers = count(1)  # of keepers, leases and reservations
        self._memory: dict[int, int] = {}  # bytes to stay below, by the keepers that gave an amount
        self._reserved: dict[int, int] = {}  # bytes that requests hold beside models
        self.forget_parent()

    def forget_parent(self) -> None:
        """In a forked process: a thread that is not here may hold the lock. The parent's models are left as they are."""
        self._inherited = vars(self).get("_held"), vars(self).get("_inherited")
        self._lock = threading.RLock()
        self._held: dict[Key, Held] = {}

    # What is there.

    def graphs(self, source: Source) -> set[GraphInfo]:
        """The graphs whose models are in memory, whole or in part."""
        with self._lock:
            return {key.graph for key, held in self._held.items() if key.source == source and held.model is not None}

    def budget(self) -> int:
        """Bytes for all: this process, its models, and what can still be had."""
        with self._lock:
            given = list(self._memory.values())
        return min(given) if given else available() + in_use()

    def program(self) -> int:
        """Bytes of this process itself, with what its requests hold."""
        with self._lock:
            return max(PROGRAM + sum(self._reserved.values()), private())

    def others(self, keys: set[Key], freed: Source | None = None) -> tuple[int, int]:
        """Bytes of all models but these: of those in use, and of those that nobody uses, without the ones of `freed`."""
        with self._lock:
            found = [held for key, held in self._held.items() if key not in keys]
            idle = [held for held in found if not held.leases and held.key.source != freed]
            return sum(held.size for held in found if held.leases), sum(held.size for held in idle)

    # Who keeps and who uses it.

    def keep_below(self, keeper: int, memory: int | None) -> None:
        """Have all models stay below `memory` bytes, as long as that keeper lives."""
        with self._lock:
            self._memory.pop(keeper, None)
            if memory is not None:
                self._memory[keeper] = memory

    def reserve(self, number: int, size: int) -> None:
        with self._lock:
            self._reserved[number] = size

    def give_back(self, number: int) -> None:
        """Forget a keeper, a lease or a reservation, and free what nobody keeps or uses any more."""
        with self._lock:
            self._memory.pop(number, None)
            self._reserved.pop(number, None)
            for held in list(self._held.values()):
                if number in held.keepers or number in held.leases:
                    held.keepers.discard(number)
                    held.leases.discard(number)
                    self._free_unless_wanted(held)

    def lease(self, key: Key, lease: int, keepers: Sequence[int], ways: Callable[[], Sequence[Way]]) -> Held:
        """The model of `key`, in use by `lease` until `release`; it is loaded if it is not there.

        keepers: for whom it stays afterwards. ways: how it can be loaded, from the fastest to the smallest; the first that
        fits is taken, and what nobody uses is freed for it. UserError if none fits beside what others use.
        """
        held, must_load = None, False
        try:
            while True:
                with self._lock:
                    held = self._held.get(key)
                    if held is not None and held.model is not None and not held.model.usable:
                        self._give_up(held)
                        held = None
                    must_load = held is None
                    held = held or Held(key)
                    self._held[key] = held
                    held.leases.add(lease)
                    held.keepers.update(keepers)
                    held.used = next(self.numbers)
                if must_load:
                    self._load(held, ways())
                held.ended.wait()
                if held.model is not None:
                    return held
                self.release(held, lease)  # its loading failed in another thread: this one tries for itself
        except BaseException:
            if held is not None:
                if must_load:
                    self._failed(held)
                self.release(held, lease)
            raise

    def release(self, held: Held, lease: int) -> None:
        with self._lock:
            held.leases.discard(lease)
            self._free_unless_wanted(held)

    def give_up(self, held: Held) -> None:
        """Whoever comes next gets another model; this one is closed once nobody uses it."""
        with self._lock:
            self._give_up(held)

    def free(self, source: Source) -> None:
        """Free the models of `source` that nobody uses, whoever keeps them."""
        with self._lock:
            for held in [held for key, held in self._held.items() if key.source == source]:
                held.keepers.clear()
                self._free_unless_wanted(held)

    # How models come and go.

    def _load(self, held: Held, ways: Sequence[Way]) -> None:
        with self._lock:
            way = self._choose(held, ways)
            held.size = way.footprint.loading
        model = way.load()
        with self._lock:
            held.size = way.footprint.kept
            held.model = model
        held.ended.set()

    def _failed(self, held: Held) -> None:
        with self._lock:
            if self._held.get(held.key) is held:
                del self._held[held.key]
        held.ended.set()

    def _choose(self, held: Held, ways: Sequence[Way]) -> Way:
        idle = sorted((other for other in self._held.values() if not other.leases), key=lambda other: other.used)
        if len(ways) == 1 and not idle and not self._memory:  # nothing to choose
            return ways[0]
        room = self.budget() - self.program() - sum(other.size for other in self._held.values())
        for other in idle:
            if ways[0].footprint.loading <= room:
                break
            room += other.size
            other.keepers.clear()
            self._free_unless_wanted(other)
        fitting = next((way for way in ways if way.footprint.loading <= room), None)
        if fitting is None and self._memory and (used := self.others({held.key})[0]):
            raise UserError(f"{held.key.graph.title} needs {as_text(ways[-1].footprint.loading)} of memory and "
                            f"{as_text(max(0, room))} is left: what other requests use at this moment takes {as_text(used)}; "
                            "try again when they are done, or give more memory")
        return fitting or ways[-1]

    def _give_up(self, held: Held) -> None:
        if self._held.get(held.key) is held:
            del self._held[held.key]
        self._free_unless_wanted(held)

    def _free_unless_wanted(self, held: Held) -> None:
        if held.leases or held.process != os.getpid():
            return
        here = self._held.get(held.key) is held
        if here and held.keepers:
            return
        if here:
            del self._held[held.key]
        model, held.model, held.size = held.model, None, 0
        if model is not None:
            model.close()


OWNER = Owner()
in_forked_child(OWNER.forget_parent)
