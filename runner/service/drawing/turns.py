"""Promises to those who found no room in the line: when there is a place for each, which newcomers do not take away."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

MARGIN = 1.3  # of the time that is reckoned: a machine that gets busy draws slower than it did
GRACE = 3.0  # seconds that a place is kept for whoever was told to come
MOST = 4  # promises for each place of the line
SHARE = 0.9  # of the places may be kept from newcomers: those who never come back cost the others no more


class Turns:
    """Promises by ticket, in the order in which they were made. Whoever calls holds the line's lock.

    A caller who found no room is told when to come back, and gets a ticket to show then: a cookie, which HTTP clients keep
    from one try to the next. A caller without one is a newcomer each time.
    """

    def __init__(self, places: int):
        self._places = places
        self._due: dict[str, float] = {}  # ticket -> when its place is there

    def __len__(self) -> int:
        return len(self._due)

    def admits(self, ticket: str | None, free: int, times: Sequence[float], now: float) -> bool:
        """Whether the caller with `ticket` gets a place.

        free: places that are empty. times: seconds until each next one gets empty. Whoever comes at its time gets any place;
        of a newcomer's, those who were promised one must still find as many at theirs.
        """
        self._due = {other: due for other, due in self._due.items() if due + GRACE > now}
        if self._due.get(ticket or "", math.inf) <= now:
            return free > 0
        promised = sorted(due for other, due in self._due.items() if other != ticket)[: int(SHARE * self._places)]
        empty = [free - 1 + sum(MARGIN * time <= due - now for time in times) for due in promised]
        return free > 0 and all(places >= number for number, places in enumerate(empty, 1))

    def used(self, ticket: str | None) -> None:
        """The caller with `ticket` has got its place."""
        self._due.pop(ticket or "", None)

    def promise(self, ticket: str | None, times: Sequence[float], now: float) -> tuple[int, str | None]:
        """(seconds after which to come back, ticket to show then); no ticket where too many have one already."""
        known = list(self._due)
        number = known.index(ticket) if ticket in self._due else len(known)
        later = max(1, math.ceil(MARGIN * times[min(number, len(times) - 1)]))
        if ticket not in self._due:
            ticket = secrets.token_urlsafe(16) if len(known) < MOST * self._places else None
        if ticket is not None:
            self._due[ticket] = now + later
        return later, ticket
