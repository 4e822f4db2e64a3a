"""What memory a graph takes, by estimate, and how a graph in pieces is loaded where memory is short."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..bundle.manifest import GraphInfo
from ..bundle.ms_layout import ModelSource
from ..bundle.opened import Bundle
from ..bundle.stages import activations

# Estimates, from the real configuration with Lite 2.0.0 on x86-64 (tests/benchmarks/peers.py); what a run takes beside
# the weights is each stage's own (bundle/stages/). MINDIR_* are from dense layers of 0.8 GB and more.
PROGRAM = 120_000_000  # this process
RUNTIME = 90_000_000  # a process that runs a model, without the libraries' pages, which are files
PACKED = 1.03  # of a `.ms` model's weights: kernels keep one packed copy, what it is made of are pages of files
MINDIR_LOADING, MINDIR_KEPT = 5.5, 3.4  # of a MindIR's weights


class Footprint(NamedTuple):
    """Bytes. loading: the most while a graph is loaded and run; kept: once it only waits."""

    loading: int
    kept: int


def ways(graph: GraphInfo, model_files: bool = True) -> list[int | None]:
    """How many of a graph's pieces can stay in memory, from the fastest way, all, to the smallest: every other one is
    loaded when its turn comes in a run, each time. None: the graph is loaded from MindIR, as it is if it has no pieces or
    if its engine does not take `model_files`."""
    if not (graph.ms and model_files):
        return [None]
    return list(range(len(graph.ms), -1, -1)) if len(graph.ms) > 1 else [1]


def choose(bundle: Bundle, graph: GraphInfo, budget: float, model_files: bool = True) -> int | None:
    """The fastest way that takes at most `budget` bytes; the smallest where none does."""
    found = ways(graph, model_files)
    return next((way for way in found[:-1] if footprint(bundle, graph, way).loading <= budget), found[-1])


def footprint(bundle: Bundle, graph: GraphInfo, resident: int | None) -> Footprint:
    """What a graph takes of which `resident` pieces stay in memory (see `ways`)."""
    running = activations(graph)
    if resident is None:
        weights = bundle.weight_bytes_of(graph.part)
        kept = int(MINDIR_KEPT * weights) + RUNTIME + running
        return Footprint(max(int(MINDIR_LOADING * weights) + RUNTIME, kept), kept)
    loaded = [int(PACKED * _weight_bytes(bundle.model(path))) + RUNTIME for path in graph.ms]
    kept = sum(loaded[:resident])
    # One of several pieces takes less than half of what all do, and those that stay keep about half from the step before:
    # by measurement (tests/benchmarks/memory.py).
    half = running // 2
    waiting = kept + (half if resident else 0)
    most = max([kept + running, *(waiting + piece + half for piece in loaded[resident:])])
    return Footprint(most, kept + running)  # Lite keeps what a run took


def mapped(bundle: Bundle, graph: GraphInfo) -> int:
    """Bytes of packed weights that a run reads from files: they take no memory that the system could not take back."""
    return sum(piece.length for path in graph.ms for piece in bundle.model(path).packed)


@lru_cache(maxsize=256)
def _weight_bytes(source: ModelSource) -> int:
    """Of narrower weights, one is wide at a time while kernels pack them, and a table of embeddings while it is read."""
    layout = source.read()
    wide = [stretch.length for stretch in layout.stretches if stretch.mapped and source.widens(stretch)]
    return layout.weight_bytes + max(wide, default=0)
