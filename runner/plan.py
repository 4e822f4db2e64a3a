"""What memory a request takes, stage by stage, said before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from .bundle import Bundle
from .component import AT_A_TIME
from .errors import UserError
from .manifest import GraphInfo, Manifest, count
from .memory import as_text
from .ms_file import Recipe
from .verify import title

# Estimates. PACKED is from the full-size UNet with Lite 2.0.0 on x86-64 (8.0 GB resident, 6.2 GB of them weights and five
# processes), MINDIR_* from dense layers of 0.8 GB and more; the others are counted, not measured.
RUNTIME = 90_000_000  # a process that runs a model, without the libraries' pages, which are files
PACKED = 1.03  # of a `.ms` model's weights: kernels keep one packed copy, the file's own pages are given back
MINDIR_LOADING, MINDIR_KEPT = 5.5, 3.4  # of a MindIR's weights
PROGRAM = 120_000_000  # this process
# Maps as large as the picture at the highest level that are alive at once: skips, what a convolution unrolls, sums.
UNET_MAPS, MOVQ_MAPS = 24, 12
MOVQ_CHANNELS = 128  # at the picture's own size, in the real checkpoint
CONTEXT_TOKENS = 32


class Stage(NamedTuple):
    """A graph that a request loads. loading: the most while it is loaded and run; kept: once it only waits. Bytes."""

    graph: GraphInfo
    loading: int
    kept: int


class Plan(NamedTuple):
    """The stages of a request in their order, and whether models stay loaded from one to the next."""

    stages: Sequence[Stage]
    keep_loaded: bool

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        kept = most = 0
        for stage in self.stages:
            most = max(most, kept + stage.loading)
            kept += stage.kept if self.keep_loaded else 0
        return PROGRAM + most

    def require(self, budget: int) -> None:
        """UserError if it does not fit into `budget` bytes."""
        if self.peak <= budget:
            return
        staged = self._replace(keep_loaded=False)
        worst = max(self.stages, key=lambda stage: stage.loading)
        needs = f"keeping all models loaded needs about {as_text(self.peak)}" if self.keep_loaded \
            else f"{title(worst.graph)} needs about {as_text(self.peak)}"
        advice = f"one at a time, without --keep-loaded, they need {as_text(staged.peak)}" \
            if self.keep_loaded and staged.peak <= budget else "choose a smaller size, or free memory, or set --memory"
        raise UserError(f"{needs} of memory and {as_text(budget)} is there: {advice}")

    def __str__(self) -> str:
        lines = [f"  {title(stage.graph):32} {as_text(stage.loading):>10}" for stage in self.stages]
        how = "all kept loaded" if self.keep_loaded else "one at a time"
        return "\n".join([*lines, f"  {f'peak, {how}':32} {as_text(self.peak):>10}"])


def plan(bundle: Bundle, graphs: Iterable[GraphInfo], keep_loaded: bool = False) -> Plan:
    """The plan of running `graphs`, one after another."""
    return Plan([stage(bundle, graph) for graph in graphs], keep_loaded)


def text_to_picture(manifest: Manifest, size: tuple[int, int], batch: int = 2, prior_batch: int = 2) -> list[GraphInfo]:
    """The graphs that make a picture of `size` (height, width) from a text. batch, prior_batch: 2 with guidance."""
    return [
        manifest.find("text_encoder"),
        manifest.find("prior_context"),
        manifest.find("prior", prior_batch),
        manifest.find("unet_context"),
        manifest.find("unet", batch, size),
        manifest.find("movq_decoder", 1, size),
    ]


@lru_cache(maxsize=256)
def stage(bundle: Bundle, graph: GraphInfo) -> Stage:
    """What one graph takes."""
    running = activations(graph)
    if not graph.ms:
        weights = bundle.manifest.files[bundle.weights_of(graph.part)].size
        kept = int(MINDIR_KEPT * weights) + RUNTIME + running
        return Stage(graph, max(int(MINDIR_LOADING * weights) + RUNTIME, kept), kept)
    sizes = [Recipe.read(bundle.file(path)).size for path in graph.ms]
    packed = int(PACKED * sum(sizes)) + RUNTIME * len(sizes)
    loading = sum(sorted(sizes)[-AT_A_TIME:])
    return Stage(graph, packed + max(loading, running), packed + running)  # Lite keeps what a run took


def activations(graph: GraphInfo) -> int:
    """An estimate of what a run takes beside the weights, in bytes."""
    tensors = 4 * sum(count(tensor.shape) for tensor in (*graph.inputs, *graph.outputs))
    if graph.name == "unet":
        (batch, _, height, width), channels = graph.input("sample").shape, graph.input("time_proj").shape[-1]
        pixels, heads = height * width, max(channels // 32, 1)  # the second level: twice the channels, heads of 64
        scores = batch * heads * (pixels // 4) * (pixels // 4 + CONTEXT_TOKENS)
        return tensors + 4 * (UNET_MAPS * batch * pixels * channels + 2 * scores)
    if graph.name == "movq_decoder":
        _, _, height, width = graph.outputs[0].shape
        return tensors + 4 * MOVQ_MAPS * height * width * MOVQ_CHANNELS
    return 2 * tensors

