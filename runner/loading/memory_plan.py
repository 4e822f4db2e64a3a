"""What memory a request takes, graph by graph, said before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..bundle.opened import Bundle
from ..bundle.stages import TEXT_TO_PICTURE, needed
from ..common.errors import UserError
from .footprint import PROGRAM, choose, footprint, mapped, ways
from ..bundle.manifest import GraphInfo, Manifest
from ..common.memory import as_text
from ..upkeep.replay import title


class Demand(NamedTuple):
    """A graph that a request loads. loading: the most while it is loaded and run; kept: once it only waits. Bytes.

    reloaded: how many of its pieces are loaded again in every run, for lack of memory. mapped: bytes of packed weights
    that it reads in every run, which are pages of files.
    """

    graph: GraphInfo
    loading: int
    kept: int
    reloaded: int = 0
    mapped: int = 0

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
        notes = ", ".join(filter(None, (self.reads, self.remark)))
        return f"  {title(self.graph):32} {as_text(self.loading):>10}  {notes}".rstrip()


class MemoryPlan(NamedTuple):
    """The demands of a request in their order, and whether models stay loaded from one to the next."""

    demands: Sequence[Demand]
    keep_loaded: bool

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        kept = most = 0
        for demand in self.demands:
            most = max(most, kept + demand.loading)
            kept += demand.kept if self.keep_loaded else 0
        return PROGRAM + most

    def require(self, budget: int) -> None:
        """UserError if it does not fit into `budget` bytes."""
        if self.peak <= budget:
            return
        staged = self._replace(keep_loaded=False)
        worst = max(self.demands, key=lambda demand: demand.loading)
        needs = f"keeping all models loaded needs about {as_text(self.peak)}" if self.keep_loaded \
            else f"{title(worst.graph)} needs about {as_text(self.peak)}"
        advice = "choose a smaller size, or make room for it (free memory, raise --memory)"
        if self.keep_loaded and staged.peak <= budget:
            advice = f"one at a time, without --keep-loaded, they need {as_text(staged.peak)}"
        raise UserError(f"{needs} of memory and {as_text(budget)} is there: {advice}")

    def __str__(self) -> str:
        lines = map(str, self.demands)
        how = "all kept loaded" if self.keep_loaded else "one at a time"
        return "\n".join([*lines, f"  {f'peak, {how}':32} {as_text(self.peak):>10}"])


def plan_memory(bundle: Bundle, graphs: Iterable[GraphInfo], keep_loaded: bool = False, budget: int | None = None) -> MemoryPlan:
    """The plan of running `graphs`, one after another, each within `budget` bytes if it can (None: as fast as it can)."""
    demands = []
    for graph in graphs:
        all_of_it = ways(graph)[0]
        resident = all_of_it if keep_loaded or budget is None else choose(bundle, graph, budget - PROGRAM)
        demands.append(Demand(graph, *footprint(bundle, graph, resident), all_of_it - resident, mapped(bundle, graph)))
    return MemoryPlan(demands, keep_loaded)


def text_to_picture(
    manifest: Manifest, size: tuple[int, int], batches: Sequence[int] = (2,), prior_batch: int = 2
) -> list[GraphInfo]:
    """The graphs that make a picture of `size` (height, width) from a text. batches, prior_batch: 2 with guidance."""
    return needed(manifest, TEXT_TO_PICTURE, size, {"prior": (prior_batch,), "unet": batches})
