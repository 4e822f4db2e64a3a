"""What memory a graph takes, by estimate, and how a graph in pieces is loaded where memory is short."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..bundle.opened import Bundle
from ..bundle.manifest import GraphInfo, count
from ..bundle.model_source import ModelSource

# Estimates, from the real configuration with Lite 2.0.0 on x86-64 (tests/benchmarks/peers.py): the UNet's 6.2 GB of
# weights in five processes take 7.4 GB in a step at 512x512 and 8.8 GB at 768x768, the MoVQ decoder 0.9 and 1.6 GB.
# MINDIR_* are from dense layers of 0.8 GB and more.
PROGRAM = 120_000_000  # this process
RUNTIME = 90_000_000  # a process that runs a model, without the libraries' pages, which are files
PACKED = 1.03  # of a `.ms` model's weights: kernels keep one packed copy, what it is made of are pages of files
MINDIR_LOADING, MINDIR_KEPT = 5.5, 3.4  # of a MindIR's weights
# Maps as large as the picture at the highest level, and scores of attention at the second, that are there at once:
# each process keeps what its piece took.
UNET_MAPS, UNET_SCORES, MOVQ_MAPS = 72, 6, 25
MOST_SCORES = 2**27  # bytes: of more, some are computed after others (SCORES in models/layers.py)
# A large picture is decoded in bands of rows: few of its maps are whole, and a band takes as much whatever its picture.
WHOLE_MOVQ_MAPS, MOVQ_BAND = 4, 250_000_000
MOVQ_CHANNELS = 128  # at the picture's own size, in the real checkpoint
CONTEXT_TOKENS = 32


class Footprint(NamedTuple):
    """Bytes. loading: the most while a graph is loaded and run; kept: once it only waits."""

    loading: int
    kept: int


def ways(graph: GraphInfo) -> range:
    """How many of a graph's pieces can stay in memory, from the fastest way, all, to the smallest: every other one is
    loaded when its turn comes in a run, each time."""
    return range(len(graph.ms), -1, -1) if len(graph.ms) > 1 else range(1, 0, -1)


def choose(bundle: Bundle, graph: GraphInfo, budget: float) -> int:
    """The fastest way that takes at most `budget` bytes; the smallest where none does."""
    found = ways(graph)
    return next((way for way in found[:-1] if footprint(bundle, graph, way).loading <= budget), found[-1])


def footprint(bundle: Bundle, graph: GraphInfo, resident: int) -> Footprint:
    """What a graph takes of which `resident` pieces stay in memory."""
    running = activations(graph)
    if not graph.ms:
        weights = bundle.manifest.files[bundle.weights_of(graph.part)].size
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
    return source.read().weight_bytes


def activations(graph: GraphInfo) -> int:
    """An estimate of what a run takes beside the weights, in bytes."""
    tensors = 4 * sum(count(tensor.shape) for tensor in (*graph.inputs, *graph.outputs))
    if graph.name == "unet":
        (batch, _, height, width), channels = graph.input("sample").shape, graph.input("time_proj").shape[-1]
        pixels, heads = height * width, max(channels // 32, 1)  # the second level: twice the channels, heads of 64
        scores = batch * heads * (pixels // 4) * (pixels // 4 + CONTEXT_TOKENS)
        return tensors + 4 * UNET_MAPS * batch * pixels * channels + UNET_SCORES * min(4 * scores, MOST_SCORES)
    if graph.name == "movq_decoder":
        _, _, height, width = graph.outputs[0].shape
        one = 4 * height * width * MOVQ_CHANNELS
        return tensors + min(MOVQ_MAPS * one, WHOLE_MOVQ_MAPS * one + MOVQ_BAND)
    return 2 * tensors
