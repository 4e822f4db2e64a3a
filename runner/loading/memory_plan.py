"""What memory a request takes, graph by graph, said before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..bundle.manifest import GraphInfo, Manifest
from ..bundle.opened import Bundle
from ..bundle.stages import TEXT_TO_PICTURE, needed
from ..common.errors import UserError
from ..common.memory import as_text
from .footprint import PROGRAM, choose, footprint, mapped, ways


class Demand(NamedTuple):
    """A graph that a request loads. loading: the most while it is loaded and run; kept: once it only waits. Bytes.

    reloaded: how many of its pieces are loaded again in every run, for lack of memory. mapped: bytes of packed weights
    that it reads in every run, which are pages of files. waiting: bytes of the same graph for another batch, which a
    request changes to and fro, and which stays loaded meanwhile.
    """

    graph: GraphInfo
    loading: int
    kept: int
    reloaded: int = 0
    mapped: int = 0
    waiting: int = 0

    @property
    def remark(self) -> str:
        """What is slow about it; "" if nothing is."""
        if not self.reloaded:
            return ""
        return f"{self.reloaded} of its {len(self.graph.ms)} pieces are loaded again in every step"

    @property
    def reads(self) -> str:
        """What a run reads beside its memory; "" if nothing."""
        return f"and {as_text(self.mapped)} of the system's cache of files" if self.mapped else ""

    def __str__(self) -> str:
        other = f"beside {as_text(self.waiting)} of another batch" if self.waiting else ""
        return _row(self.graph.title, self.loading, *filter(None, (self.reads, other, self.remark)))


class MemoryPlan(NamedTuple):
    """The demands of a request in their order, and whether models stay loaded from one to the next.

    beside: bytes that the request holds at once beside models: latents, embeddings, pictures. others: bytes of models that
    other requests use or have left. program: of this process itself.
    """

    demands: Sequence[Demand]
    keep_loaded: bool
    beside: int = 0
    others: int = 0
    program: int = PROGRAM

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        kept = most = 0
        for demand in self.demands:
            most = max(most, demand.loading + (kept if self.keep_loaded else demand.waiting))
            kept += demand.kept
        return self.program + self.others + self.beside + most

    def beside_idle(self, idle: int, budget: int) -> MemoryPlan:
        """The plan beside models of `idle` bytes that nobody uses: they stay as far as `budget` allows."""
        return self._replace(others=self.others + max(0, min(idle, budget - self.peak)))

    def require(self, budget: int) -> None:
        """UserError if it does not fit into `budget` bytes."""
        if self.peak <= budget:
            return
        staged = self._replace(keep_loaded=False, demands=[demand._replace(waiting=0) for demand in self.demands])
        worst = max(self.demands, key=lambda demand: demand.loading)
        what = "keeping all models loaded" if self.keep_loaded else worst.graph.title
        notes = [f"{as_text(size)} for {whom}" for size, whom in (
            (self.program if self.program > PROGRAM else 0, "this process itself"),
            (self.others, "models that other requests use"), (self.beside, "what the request makes")) if size]
        advice = "choose a smaller size, or make room for it (free memory, raise --memory)"
        if self.beside > self.peak - budget:
            advice = "ask for fewer pictures at once, " + advice
        if self.keep_loaded and staged.peak <= budget:
            advice = f"one at a time, without --keep-loaded, they need {as_text(staged.peak)}"
        of_it = f" ({' and '.join(notes)} included)" if notes else ""
        raise UserError(f"{what} needs about {as_text(self.peak)} of memory{of_it} and {as_text(budget)} is there: {advice}")

    def __str__(self) -> str:
        rows = [_row(name, size) for name, size in (
            ("this program", self.program), ("latents, embeddings, pictures", self.beside),
            ("models of other requests", self.others)) if size]
        how = "all kept loaded" if self.keep_loaded else "one at a time"
        return "\n".join([*map(str, self.demands), *rows, _row(f"peak, {how}", self.peak)])


def plan_memory(
    bundle: Bundle, graphs: Iterable[GraphInfo], keep_loaded: bool = False, budget: int | None = None, *, beside: int = 0,
    others: int = 0, program: int = PROGRAM, model_files: bool = True,
) -> MemoryPlan:  # fmt: skip
    """The plan of running `graphs`, one after another, each within `budget` bytes if it can (None: as fast as it can).

    beside, others, program: see MemoryPlan. model_files: whether graphs load from Lite's own format where they have it.
    """
    taken = program + others + beside
    demands: list[Demand] = []
    for graph in dict.fromkeys(graphs):
        found = ways(graph, model_files)
        resident = found[0] if keep_loaded or budget is None else choose(bundle, graph, budget - taken, model_files)
        reloaded = found.index(resident)
        demand = Demand(graph, *footprint(bundle, graph, resident), reloaded, mapped(bundle, graph) if model_files else 0)
        before = demands[-1] if demands and (demands[-1].graph.name, demands[-1].graph.size) == (graph.name, graph.size) else None
        if before and not reloaded and (budget is None or taken + before.kept + demand.loading <= budget):
            demand = demand._replace(waiting=before.kept)
        demands.append(demand)
    return MemoryPlan(demands, keep_loaded, beside, others, program)


def text_to_picture(
    manifest: Manifest, size: tuple[int, int], batches: Sequence[int] = (2,), prior_batch: int = 2
) -> list[GraphInfo]:
    """The graphs that make a picture of `size` (height, width) from a text. batches, prior_batch: 2 with guidance."""
    return needed(manifest, TEXT_TO_PICTURE, size, {"prior": (prior_batch,), "unet": batches})


def _row(name: str, size: int, *notes: str) -> str:
    return f"  {name:32} {as_text(size):>10}  {', '.join(notes)}".rstrip()
