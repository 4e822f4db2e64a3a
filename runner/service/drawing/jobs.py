"""Jobs, what became of them, and the bounded line in which they wait for the one thread that draws."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...request import Request
from .errors import ApiError, busy, stopping
from .images import Form
from .overlay import Overlay
from .turns import Turns

UNKNOWN_STEP = 1.0  # seconds, until one was measured
WEIGHT = 0.3  # of the newest measurement in the running mean


class Drawing(NamedTuple):
    """One picture to draw. request: complete, of one picture. pictures: of its mix, in order. brought: by field. overlay: what
    becomes of it."""

    request: Request
    pictures: tuple[Image.Image, ...] = ()
    brought: dict[str, Image.Image] = {}
    overlay: Overlay | None = None

    @property
    def size(self) -> int:
        """Bytes of its pictures."""
        below = (self.overlay.picture, self.overlay.mask) if self.overlay else ()
        return sum(3 * picture.width * picture.height for picture in (*self.pictures, *self.brought.values(), *below))


class Drawn(NamedTuple):
    """A finished picture as a file in base64. request: makes it again. seconds: that it took."""

    text: str
    request: Request
    seconds: float


class Job:
    """What a caller asked for and what became of it. The loop's thread makes and reads it, the worker fills it.

    state: queued, generating, completed, failed or cancelled. step, steps: of the picture in hand. latents: after that
    step. partials: latents after the steps at which the caller wants a preview.
    """

    def __init__(self, drawings: Sequence[Drawing], form: Form, face: str, previews: int = 0):
        self.id = f"job_{secrets.token_hex(16)}"
        self.drawings, self.form, self.face, self.previews = tuple(drawings), form, face, previews
        self.size = self.drawings[0].size if self.drawings else 0  # drawings of a job share their pictures
        self.state, self.created = "queued", time.time()
        self.queued, self.began, self.ended = time.monotonic(), 0.0, 0.0
        self.step, self.steps, self.latents = 0, self.drawings[0].request.num_inference_steps or 1, None
        self.partials: list[np.ndarray] = []
        self.drawn: list[Drawn] = []
        self.warnings: list[str] = []
        self.error: ApiError | None = None
        self.cancelled = self.interrupted = self.skipped = False
        self.version = 0  # grows with each change, in the loop's thread
        self._loop, self._waiters = asyncio.get_running_loop(), []  # type: ignore[var-annotated]

    @property
    def over(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")

    @property
    def progress(self) -> float:
        """0 to 1."""
        done = len(self.drawn) + (self.step / max(self.steps, 1) if self.state == "generating" else 0)
        return 1.0 if self.state == "completed" else min(done / len(self.drawings), 1.0)

    def end(self, state: str, error: ApiError | None = None) -> None:
        self.error, self.ended, self.state = error, time.monotonic(), state
        self.latents, self.drawings = None, tuple(Drawing(drawing.request) for drawing in self.drawings)
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for a change, from any thread."""
        with suppress(RuntimeError):  # the loop has ended, and with it those who waited
            self._loop.call_soon_threadsafe(self._wake)

    async def change(self, seen: int) -> None:
        """Return once something has changed since `version` was `seen`, which the caller read before it looked."""
        if self.version == seen:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        self.version += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Pace:
    """How long a picture takes, by running means of what pictures took."""

    def __init__(self) -> None:
        self._step: float | None = None  # seconds of a step for each million pixels
        self._rest: float | None = None  # seconds of all but the decoder's steps

    def measured(self, request: Request, steps: int, step_seconds: float, seconds: float) -> None:
        """step_seconds: of `steps` steps. seconds: of the whole picture."""
        if steps:
            self._step = _mean(self._step, step_seconds / steps / _millions(request))
        self._rest = _mean(self._rest, max(seconds - step_seconds, 0.0))

    def seconds(self, request: Request, steps_done: int = 0) -> float:
        step = UNKNOWN_STEP if self._step is None else self._step * _millions(request)
        return (self._rest or 0.0) + max((request.num_inference_steps or 1) - steps_done, 0) * step

    def left(self, job: Job) -> float:
        """Seconds until a job is done, once it is its turn."""
        drawings = job.drawings[len(job.drawn):]
        return sum(self.seconds(drawing.request, 0 if number else job.step) for number, drawing in enumerate(drawings))


class Line:
    """Jobs that wait, in the order in which they came, and the one in hand."""

    def __init__(self, most: int, most_bytes: int, pace: Pace):
        self.most, self._most_bytes, self._pace = most, most_bytes, pace
        self._jobs: deque[Job] = deque()
        self._turns = Turns(most)
        self._changed = threading.Condition()
        self.current: Job | None = None
        self.closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def require_room(self, ticket: str | None = None) -> None:
        """As `put` of a job without pictures, which then is not put."""
        with self._changed:
            self._admit(ticket, self.most - len(self._jobs), keep=True)

    def put(self, job: Job, ticket: str | None = None) -> None:
        """ApiError 429 where there is no room, 503 once the line is closed. ticket: that the caller got with an earlier 429."""
        with self._changed:
            full = sum(other.size for other in self._jobs) + job.size > self._most_bytes
            self._admit(ticket, 0 if full and self._jobs else self.most - len(self._jobs))
            self._jobs.append(job)
            self._changed.notify()

    def _admit(self, ticket: str | None, free: int, *, keep: bool = False) -> None:
        """keep: the promise that the ticket stands for."""
        if self.closed:
            raise stopping()
        now, times = time.monotonic(), self._places_in(len(self._turns) + 1)
        if not self._turns.admits(ticket, free, times, now):
            raise busy(len(self._jobs), *self._turns.promise(ticket, times, now))
        if not keep:
            self._turns.used(ticket)

    def take(self) -> Job | None:
        """The next job, which is then the one in hand; waits for one. None once the line is closed."""
        with self._changed:
            self.current = None
            self._changed.wait_for(lambda: self._jobs or self.closed)
            self.current = self._jobs.popleft() if self._jobs else None
            return self.current

    def cancel(self, job: Job) -> None:
        """A job that waits ends at once, the one in hand after its step."""
        job.cancelled = True
        with self._changed:
            if job not in self._jobs:
                return
            self._jobs.remove(job)
        job.end("cancelled")

    def close(self) -> None:
        """The job in hand is the last one. Those that wait are told."""
        with self._changed:
            self.closed, waiting = True, list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            job.end("failed", stopping())

    def position(self, job: Job) -> int | None:
        """How many jobs come before; None for one that does not wait."""
        jobs = list(self._jobs)
        return jobs.index(job) + (self.current is not None) if job in jobs else None

    def _places_in(self, count: int) -> list[float]:
        """Seconds until each of the next `count` places gets empty, by measure of what pictures took."""
        jobs = [*([self.current] if self.current is not None else []), *self._jobs]
        turns = list(map(self._pace.left, jobs)) or [0.0]
        turns += [sum(turns) / len(turns)] * (count - len(turns))  # those who will take the places
        return list(accumulate(turns[:count]))


def _mean(before: float | None, now: float) -> float:
    return now if before is None else (1 - WEIGHT) * before + WEIGHT * now


def _millions(request: Request) -> float:
    return (request.height or 512) * (request.width or 512) / 1e6


class Kept:
    """Jobs that callers may ask for: all that are not over, and those that were lately."""

    def __init__(self, most: int, seconds: float):
        self._most, self._seconds = most, seconds
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        self.tidy()
        self._jobs[job.id] = job

    def find(self, name: str) -> Job:
        self.tidy()
        if name not in self._jobs:
            raise ApiError(404, "there is no such job, or it ended too long ago", "job_not_found")
        return self._jobs[name]

    def tidy(self) -> None:
        now, over = time.monotonic(), [job for job in self._jobs.values() if job.over]
        old = [job for job in over if now - job.ended > self._seconds]
        for job in [*old, *sorted(over, key=lambda job: job.ended)[: max(len(over) - self._most, 0)]]:
            self._jobs.pop(job.id, None)

    def describe(self, job: Job, line: Line) -> dict[str, Any]:
        """A job as JSON, without its pictures."""
        found: dict[str, Any] = {"id": job.id, "object": "image.job", "status": job.state, "created": int(job.created),
                                 "progress": round(job.progress, 4), "poll_url": f"/v1/jobs/{job.id}"}
        if (position := line.position(job)) is not None:
            found["queue_position"] = position
        if job.state == "generating":
            found |= {"step": job.step, "steps": job.steps, "picture": len(job.drawn) + 1, "pictures": len(job.drawings)}
        if job.error is not None:
            found |= job.error.body("/v1/")
        return found
