"""What the two kinds of crews have in common: painters that are given orders, one at a time each."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .painter import Answer, Order
from .rows import Job


class Outcome(NamedTuple):
    """What became of a job. answer: the painter's; None if the painter died over it. worker: who it was."""

    job: Job
    answer: Answer | None
    worker: str


class Crew(Protocol):
    """Painters that work side by side. All of them end with `close`."""

    ships: bool  # whether pictures that a request names must travel with the order

    @property
    def idle(self) -> int:
        """How many painters wait for an order."""

    @property
    def busy(self) -> int:
        """How many orders are being worked on."""

    def give(self, job: Job, order: Order) -> None:
        """Have an idle painter make it."""

    def wait(self, seconds: float) -> list[Outcome]:
        """What has come to its end, after at most that time. UserError when there is no painter left, nor will be."""

    def close(self) -> None:
        """End all painters at once."""
