"""The models of a bundle as a pipeline uses them: leased from the process's owner, within what memory there is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..bundle.manifest import GraphInfo
from ..bundle.opened import Bundle
from ..common.control_groups import thread_count
from ..engine import Engine
from .footprint import Footprint, footprint, ways
from .lease import Alternating, Lease, Runner
from .loader import load, loadable, takes_model_files
from .memory_plan import MemoryPlan, plan_memory
from .owner import OWNER, Key, Owner, Source, Way

Size = tuple[int, int]


class Models:
    """The models of a bundle's graphs on one engine, loaded when they are needed.

    keep_loaded: whether a model stays in memory after its last user is done with it, as long as this object lives.
    memory: bytes that this process and its models should stay below while this object lives; None for what the machine has
    left. may_free: whether models may go between the graphs of a request all the same, where memory is short for it.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, *, device: str = "cpu", threads: int | None = None, keep_loaded: bool,
        memory: int | None = None, may_free: bool = False, owner: Owner = OWNER,
    ):  # fmt: skip
        self.threads = thread_count(threads)
        self.bundle, self.engine, self.device = loadable(bundle, engine, device, self.threads), engine, device
        self.keep_loaded, self.may_free, self._owner = keep_loaded, may_free, owner
        identity = getattr(bundle, "identity", bundle)
        self.source = Source(identity, engine, device, self.threads, (self.bundle.use_packed, self.bundle.check))
        self._thread = _Thread()
        self._number = next(owner.numbers)
        weakref.finalize(self, owner.give_back, self._number).atexit = False
        self.memory = memory

    @property
    def precision(self) -> str:
        """In which graphs are computed, one of engine.precision.PRECISIONS."""
        return self.engine.precision if takes_model_files(self.engine, self.device) else "float32"

    @property
    def memory(self) -> int | None:
        return self._memory

    @memory.setter
    def memory(self, memory: int | None) -> None:
        self._memory = memory
        self._owner.keep_below(self._number, memory)

    @property
    def budget(self) -> int:
        """Bytes for all of this process: the program, models of all pipelines, and what can still be had."""
        return self._owner.budget()

    @property
    def in_memory(self) -> set[GraphInfo]:
        """The graphs whose models are in memory now, whole or in part, whoever uses them."""
        return self._owner.graphs(self.source)

    def lease(self, name: str, batch: int = 1, size: Size | None = None) -> Lease:
        """A context manager that gives a function over a graph's inputs, by name, which returns its outputs in order."""
        return self._lease(size, name, batch)

    def lease_in_turns(self, size: Size | None = None) -> AbstractContextManager[Callable[[str, int], Runner]]:
        """The same for a block that changes between graphs: it gives a function from a name and a batch to the graph."""
        return Alternating(self._owner, partial(self._lease, size))

    def plan(self, graphs: Iterable[GraphInfo], beside: int = 0) -> MemoryPlan:
        """What memory a request takes. beside: bytes that it holds at once beside models: latents, embeddings, pictures."""
        return self._plan(list(graphs), beside, self.budget)

    def require(self, graphs: Iterable[GraphInfo], beside: int = 0) -> tuple[MemoryPlan, Reservation]:
        """The plan of a request, and what holds its `beside` in other requests' view, until it is closed or let go.

        What a thread requires before it leases a model is one request: that of a combined pipeline comes in two parts.
        UserError, with the figures, if the request cannot run in the memory that there is for it. What other threads use
        does not count here: its leases wait for that.
        """
        budget, thread = self.budget, self._thread  # once: what the machine has left changes all the time
        asked = {**({} if thread.runs else thread.asked), **dict.fromkeys(graphs)}
        found = self._plan([graph for graph in self.bundle.manifest.graphs if graph in asked], beside, budget)
        thread.runs, thread.asked = True, {}
        if self.device == "cpu":
            (found._replace(others=0) if self._owner.may_wait() else found).require(budget)
        thread.runs, thread.asked, thread.frees = False, asked, self.keep_loaded and not found.keep_loaded
        if thread.frees:
            self.unload()
        return found, Reservation(self._owner, beside)

    def unload(self) -> None:
        """Free every model that nobody is using."""
        self._owner.free(self.source)

    def _lease(self, size: Size | None, name: str, batch: int, keepers: Sequence[int] = ()) -> Lease:
        graph = self.bundle.manifest.find(name, batch, size)  # raises the error that says what is missing
        self._thread.runs = True
        if self.keep_loaded and not self._thread.frees:
            keepers = (*keepers, self._number)
        return Lease(self._owner, Key(self.source, graph), keepers, partial(self._ways, graph))

    def _ways(self, graph: GraphInfo) -> list[Way]:
        return [Way(self._footprint(graph, resident), partial(self._load, graph, resident))
                for resident in ways(graph, takes_model_files(self.engine, self.device))]

    def _footprint(self, graph: GraphInfo, resident: int | None) -> Footprint:
        return footprint(self.bundle, graph, resident) if self.device == "cpu" else Footprint(0, 0)

    def _load(self, graph: GraphInfo, resident: int | None) -> Any:
        return load(self.bundle, graph, self.engine, self.device, self.threads, resident)

    def _plan(self, graphs: list[GraphInfo], beside: int, budget: int) -> MemoryPlan:
        """Models stay loaded in a plan if that fits, or if somebody asked for it."""
        plan = partial(plan_memory, self.bundle, graphs, budget=budget, beside=beside, program=self._owner.program(),
                       model_files=takes_model_files(self.engine, self.device))
        keys = {Key(self.source, graph) for graph in graphs}
        in_use, idle = self._owner.others(keys)
        if self.keep_loaded:
            found = plan(keep_loaded=True, others=in_use).beside_idle(idle, budget)
            if found.peak <= budget or not self.may_free:
                return found
        in_use, idle = self._owner.others(keys, self.source)  # its own are freed for it
        return plan(keep_loaded=False, others=in_use).beside_idle(idle, budget)


class _Thread(threading.local):
    """What a thread is doing with the models. asked: the graphs of its request. runs: whether it has leased one of them since.
    frees: whether the request frees each model after its last user, for lack of memory."""

    runs = frees = False

    def __init__(self) -> None:
        self.asked: dict[GraphInfo, None] = {}


class Reservation:
    """Bytes that a request holds beside models, which count for every other request; a context manager."""

    def __init__(self, owner: Owner, size: int):
        number = next(owner.numbers)
        self.close = weakref.finalize(self, owner.give_back, number)
        self.close.atexit = False
        owner.reserve(number, size)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
