"""The owner of all Lite models of a process: who uses which, which stay in memory, and what must go to make room.

Pipelines on the same bundle share its models, and all pipelines share one budget. A model that nobody uses stays for those
who keep it, until its room is needed. A forked process has an owner without models: those of its parent live on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import NamedTuple

from ..bundle.manifest import GraphInfo
from ..common.errors import UserError
from ..common.locks import in_forked_child
from ..common.memory import as_text, available, in_use, private
from ..engine import Engine, LiteModel
from ..engine.process import deadline
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

    size: bytes that it takes, or will. leases: the numbers of those that use it, and their threads. keepers: of those for
    whom it stays when nobody does. used: the larger, the later it was used.
    """

    def __init__(self, key: Key):
        self.key, self.process = key, os.getpid()
        self.model: LiteModel | None = None
        self.size = self.used = 0
        self.leases: dict[int, int] = {}
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
        self._released = threading.Condition(self._lock)
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

    def may_wait(self) -> bool:
        """Whether this thread may wait for models to be released: others use them, who are there to do so."""
        with self._lock:
            users = {thread for held in self._held.values() for thread in held.leases.values()}
        return threading.get_ident() not in users and users <= {thread.ident for thread in threading.enumerate()}

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
                    held.leases.pop(number, None)
                    self._free_unless_wanted(held)
            self._released.notify_all()

    def lease(self, key: Key, lease: int, keepers: Sequence[int], ways: Callable[[], Sequence[Way]]) -> Held:
        """The model of `key`, in use by `lease` until `release`; it is loaded if it is not there.

        keepers: for whom it stays afterwards. ways: how it can be loaded, from the fastest to the smallest; the first that
        fits is taken, and what nobody uses is freed for it. Where none fits beside what other threads use, this one waits
        for them. UserError where they do not end within the deadline of a run, or where this thread uses models itself:
        those who wait hold nothing, so that nobody waits for ever.
        """
        held, way, until = None, None, time.monotonic() + deadline()
        try:
            while True:
                with self._lock:
                    held, way = self._held.get(key), None
                    if held is not None and held.model is not None and not held.model.usable:
                        self._give_up(held)
                        held = None
                    if held is None:
                        way = self._choose(key, ways(), until)
                        if way is None:
                            continue  # it has waited; who came first may have loaded this very model
                        held = Held(key)
                        held.size = way.footprint.loading
                    self._held[key] = held
                    held.leases[lease] = threading.get_ident()
                    held.keepers.update(keepers)
                    held.used = next(self.numbers)
                if way is not None:
                    self._load(held, way)
                held.ended.wait()
                if held.model is not None:
                    return held
                self.release(held, lease)  # its loading failed in another thread: this one tries for itself
        except BaseException:
            if held is not None:
                if way is not None:
                    self._failed(held)
                self.release(held, lease)
            raise

    def release(self, held: Held, lease: int) -> None:
        with self._lock:
            held.leases.pop(lease, None)
            self._free_unless_wanted(held)
            self._released.notify_all()

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

    def _load(self, held: Held, way: Way) -> None:
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

    def _choose(self, key: Key, ways: Sequence[Way], until: float) -> Way | None:
        """The way to load `key`, once there is room for it. None: there was none, and some model has been released since."""
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
        if fitting is None and self._memory and (used := self.others({key})[0]):
            if not self.may_wait() or not self._released.wait(min(until - time.monotonic(), threading.TIMEOUT_MAX)):
                raise UserError(f"{key.graph.title} needs {as_text(ways[-1].footprint.loading)} of memory and "
                                f"{as_text(max(0, room))} is left: what other requests use at this moment takes "
                                f"{as_text(used)}; try again when they are done, or give more memory")
            return None
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
