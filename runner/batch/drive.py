"""A batch from its file to its pictures: all rows are judged, then a crew makes what is missing."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from ..common.errors import UserError
from ..pictures import trust
from ..pictures.fetch import is_url
from ..pictures.images import load_image, pixels_sha256
from ..pictures.provenance import as_path, as_text
from ..request import Request
from .crew import Crew, Outcome
from .output import Output
from .painter import Order
from .rows import Job, each, walk

LOOK = 1.0  # seconds between two looks at the crew, after which the progress is shown anew
DIED = "the process that made it died each time: give it more memory, or choose fewer --workers"


class Judge(Protocol):
    """Who knows the bundle."""

    bundle_sha256: str

    @property
    def precision(self) -> str: ...

    def judge(self, requests: Sequence[str]) -> Iterable[Request | UserError]: ...


def judged(path: Path, jobs: Sequence[Job], judge: Judge) -> list[Job]:
    """The jobs with complete requests, which name their pictures by their pixels. UserError names the first wrong line."""
    lines = [job.line for job in jobs]
    named = each(path, lines, _with_pixels(job.request for job in jobs))
    complete = each(path, lines, iter(judge.judge([request.to_json() for request in named])))
    return [job._replace(request=request) for job, request in zip(jobs, complete)]


def drive(jobs: Sequence[Job], crew: Crew, output: Output, bundle: Path, tries: int,
          tick: Callable[[int], Any]) -> Iterator[Outcome]:
    """Have the crew make the jobs, keep each picture, and yield what has come to its end: made, or given up.

    bundle: its path, as it was given. tries: how often a job is tried. tick: is told, now and then, how many have ended since.
    A job that fails is tried again after all others; one whose painter died, before them.
    """
    todo, tried = deque(jobs), Counter[str]()
    with closing(crew):
        while todo or crew.busy:
            while todo and crew.idle:
                job = todo.popleft()
                crew.give(job, _order(job, output.folder, bundle, crew.ships))
            ended = 0
            for outcome in crew.wait(LOOK):
                job, answer = outcome.job, outcome.answer
                tried[job.file] += 1
                if answer is not None:
                    for remark in answer.warnings:
                        warnings.warn(f"{job.file}: {remark}", stacklevel=2)
                if answer is not None and answer.png is not None:
                    output.keep(outcome, tried[job.file])
                elif tried[job.file] < tries:
                    (todo.appendleft if answer is None else todo.append)(job)
                    continue
                else:
                    output.give_up(job, error_of(outcome), outcome.worker, tried[job.file])
                ended += 1
                yield outcome
            tick(ended)


def error_of(outcome: Outcome) -> str:
    """Why a job has no picture."""
    return DIED if outcome.answer is None else outcome.answer.error or ""


def _with_pixels(requests: Iterable[Request]) -> Iterator[Request | UserError]:
    """Each request with the sha256 of each picture that it names; a picture that many name is opened once."""
    known: dict[str, str] = {}

    def pixels(found: dict[str, Any]) -> dict[str, Any]:
        name = found.get("image")
        if not isinstance(name, str):
            return found
        if name not in known:
            known[name] = pixels_sha256(load_image(name))
        if found.get("sha256", known[name]) != known[name]:
            raise UserError(f"{name} is not the picture whose sha256 the row gives")
        return {**found, "sha256": known[name]}

    for request in requests:
        try:
            yield Request.from_dict(walk(request.to_dict(), pixels))
        except UserError as error:
            yield error


def _names(request: Request) -> list[str]:
    """The pictures that a request names, which are files."""
    found: list[str] = []

    def see(value: dict[str, Any]) -> dict[str, Any]:
        if isinstance(value.get("image"), str) and not is_url(value["image"]):
            found.append(value["image"])
        return value

    walk(request.to_dict(), see)
    return found


def _order(job: Job, folder: Path, bundle: Path, ships: bool) -> Order:
    names = _names(job.request)
    beside = {name: trust.relative_to_picture(as_path(name), folder / job.file)
              for name in (as_text(bundle), *names) if not trust.is_remote(name)}
    return Order(job.file, job.request.to_json(), beside, {name: _bytes(name) for name in names} if ships else {})


def _bytes(name: str) -> bytes:
    """The bytes of a file; of one that has gone, none: the painter then says so."""
    try:
        return Path(name).read_bytes()
    except OSError:
        return b""
