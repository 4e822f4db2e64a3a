"""One owner for each Lite model: loads a graph when it is needed and frees it when it is done."""

from __future__ import annotations

import dataclasses
import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ..bundle.opened import Bundle
from ..engine import Engine, EngineError, LiteModel, TensorSpec
from ..engine.chain import Chain
from ..common.errors import UserError
from ..common.forks import in_forked_child
from .footprint import PROGRAM, choose, ways
from ..bundle.manifest import GraphInfo, TensorInfo
from ..common.memory import available, in_use

Runner = Callable[..., tuple[np.ndarray, ...]]
LOADING = 2  # pieces of a graph that load at once


class Component:
    """A named graph of a bundle (in all its batches and sizes) and the owner of its loaded models.

    bundle: as the engine loads it (`loadable`). keep_loaded: whether a model stays in memory after its last
    user is done with it. budget: says how many bytes a model may take when it is loaded.
    """

    def __init__(
        self, bundle: Bundle, name: str, engine: Engine, *, device: str, threads: int | None, keep_loaded: bool,
        budget: Callable[[], float] = lambda: math.inf,
    ):  # fmt: skip
        self.bundle, self.name, self.engine = bundle, name, engine
        self.device, self.threads, self.keep_loaded, self.budget = device, threads, keep_loaded, budget
        self._lock = threading.Lock()
        self._models: dict[GraphInfo, LiteModel] = {}
        self._users: Counter[LiteModel] = Counter()
        _all.add(self)

    @contextmanager
    def loaded(self, batch: int = 1, size: tuple[int, int] | None = None) -> Iterator[Runner]:
        """A function over the graph's inputs, by name, that returns its outputs in order; loaded while in the block."""
        graph = self.bundle.manifest.find(self.name, batch, size)
        with self._lock:
            if graph in self._models and not self._models[graph].usable:  # its process ended, or is another process's
                self._give_up(graph)
            if graph not in self._models:
                self._models[graph] = self._load(graph)
            model = self._models[graph]
            self._users[model] += 1

        def run(**inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            arrays = [np.ascontiguousarray(inputs.pop(tensor.name)) for tensor in model.inputs]
            if inputs:
                raise TypeError(f"{self.name} has no input {', '.join(inputs)}")
            try:
                return tuple(model.run(arrays))
            finally:
                if not model.usable:  # whoever comes next gets another
                    with self._lock:
                        if self._models.get(graph) is model:
                            self._give_up(graph)

        try:
            yield run
        finally:
            with self._lock:
                self._users[model] -= 1
                if not self._users[model] and self._models.get(graph) is not model:  # given up, and nobody waits for it
                    self._close(model)
                if not self.keep_loaded:
                    self._free_unused()

    @property
    def in_memory(self) -> list[GraphInfo]:
        """The graphs whose models are in memory now, whole or in part."""
        with self._lock:
            return list(self._models)

    def unload(self) -> None:
        """Free every model that nobody is using."""
        with self._lock:
            self._free_unused()

    def _free_unused(self) -> None:
        for graph in [graph for graph, model in self._models.items() if not self._users[model]]:
            self._close(self._models.pop(graph))

    def _give_up(self, graph: GraphInfo) -> None:
        model = self._models.pop(graph)
        if not self._users[model]:
            self._close(model)

    def _close(self, model: LiteModel) -> None:
        del self._users[model]
        model.close()

    def _load(self, graph: GraphInfo) -> LiteModel:
        has_ms = bool(graph.ms) and self.device == "cpu" and self.engine.takes_model_files
        model = self._load_ms(graph) if has_ms else self._load_mindir(graph)
        try:
            _check_tensors(graph, model, self.bundle.path / (graph.ms[-1] if has_ms else graph.lite))
        except BaseException:
            model.close()
            raise
        return model

    def _load_ms(self, graph: GraphInfo) -> LiteModel:
        resident = ways(graph)[0] if self.keep_loaded else choose(self.bundle, graph, self.budget())
        loaders = [partial(self._load_ms_file, path) for path in graph.ms]
        with ThreadPoolExecutor(LOADING) as pool:  # Lite packs weights on one thread
            loading = [pool.submit(load) for load in loaders[:resident]]
        models = [future.result() for future in loading if not future.exception()]
        try:
            for future in loading:
                future.result()  # raises what went wrong first
            if len(graph.ms) == 1:
                return models[0]
            return Chain([*models, *loaders[resident:]],
                         *([TensorSpec(*dataclasses.astuple(tensor)) for tensor in side]
                           for side in (graph.inputs, graph.outputs)))
        except BaseException:
            for model in models:
                model.close()
            raise

    def _load_ms_file(self, path: str) -> LiteModel:
        with self.bundle.model(path).assembled() as file:
            return self.engine.load(file, device=self.device, threads=self.threads)

    def _load_mindir(self, graph: GraphInfo) -> LiteModel:
        with self.bundle.reading(self.bundle.weights_of(graph.part)), self.bundle.unpacked(graph, graph.lite) as path:
            return self.engine.load(path, device=self.device, threads=self.threads)


class Models:
    """The models of a bundle's graphs on one engine, loaded when they are needed.

    memory: bytes that this process and its models should stay below; None for what the machine has left. may_free: whether
    models may be freed between stages all the same, where memory is short. expected: the graphs that requests have asked for,
    which stay in memory if models do.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, *, device: str = "cpu", threads: int | None = None, keep_loaded: bool,
        memory: int | None = None, may_free: bool = False,
    ):  # fmt: skip
        bundle = loadable(bundle, engine, device, threads)
        self.bundle, self.engine, self.device, self.keep_loaded = bundle, engine, device, keep_loaded
        self.memory, self.may_free = memory, may_free
        self.expected: set[GraphInfo] = set()
        names = dict.fromkeys(graph.name for graph in bundle.manifest.graphs)
        options = {"device": device, "threads": threads, "keep_loaded": keep_loaded, "budget": lambda: self.budget - PROGRAM}
        self._graphs = {name: Component(bundle, name, engine, **options) for name in names}

    @contextmanager
    def lease(self, name: str, batch: int = 1, size: tuple[int, int] | None = None) -> Iterator[Runner]:
        """A function over a graph's inputs, by name, that returns its outputs in order; loaded while in the block."""
        graph = self.bundle.manifest.find(name, batch, size)  # raises the error that says what is missing
        with self._graphs[graph.name].loaded(batch, size) as run:
            yield run

    @contextmanager
    def lease_batches(self, name: str, size: tuple[int, int] | None = None) -> Iterator[Callable[[int], Runner]]:
        """A function from a batch to the graph for it, which is loaded when it is first asked for."""
        with ExitStack() as stack:
            current: tuple[int, Runner] | None = None

            def at(batch: int) -> Runner:
                nonlocal current
                if current is None or current[0] != batch:
                    stack.close()
                    current = batch, stack.enter_context(self.lease(name, batch, size))
                return current[1]

            yield at

    @property
    def budget(self) -> int:
        """Bytes for all: this process, its models, and what can still be had."""
        return available() + in_use() if self.memory is None else self.memory

    @property
    def in_memory(self) -> set[GraphInfo]:
        """The graphs whose models are in memory now."""
        return {graph for component in self._graphs.values() for graph in component.in_memory}

    def free_between_stages(self) -> None:
        """From now on, keep no model in memory after its last user is done with it."""
        self.keep_loaded = False
        for component in self._graphs.values():
            component.keep_loaded = False
        self.unload()

    def unload(self) -> None:
        self.expected.clear()
        for component in self._graphs.values():
            component.unload()


def loadable(bundle: Bundle, engine: Engine, device: str, threads: int | None) -> Bundle:
    """The bundle as that engine loads it: what is packed serves where Lite's own format is loaded, on a CPU."""
    return bundle.for_threads(threads) if device == "cpu" and engine.takes_model_files else bundle.as_exported()


def _check_tensors(graph: GraphInfo, model: LiteModel, path: Path) -> None:
    """UserError unless `model` has the inputs that the manifest says, in any order, and the outputs, in its order."""
    inputs = [sorted(map(_describe, side.inputs)) for side in (graph, model)]
    outputs = [list(map(_describe, side.outputs)) for side in (graph, model)]
    for kind, (expected, found) in (("inputs", inputs), ("outputs", outputs)):
        if found != expected:
            raise UserError(f"{path}: the graph has the {kind} {', '.join(found)}; the manifest says "
                            f"{', '.join(expected)}: export the bundle again")


def _forget_parent() -> None:
    """In a forked process: the models are the parent's, and a thread that is not here may hold the lock."""
    for component in list(_all):
        component._lock = threading.Lock()
        component._models, component._users = {}, Counter()


_all: weakref.WeakSet[Component] = weakref.WeakSet()
in_forked_child(_forget_parent)


def _describe(tensor: TensorInfo | TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} {'x'.join(map(str, tensor.shape))}"
