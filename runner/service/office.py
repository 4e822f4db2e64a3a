"""What the routes share: the line, the worker, the jobs that are kept; accepting a job and waiting for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as Http

from .drawing.errors import TICKET, ApiError, invalid, public
from .drawing.jobs import Job, Kept, Line
from .drawing.metrics import Metrics
from .drawing.worker import Worker
from .fields import BROUGHT, Reader
from .settings import Settings

MOST_PART = 1 << 16  # bytes of a field of a form that is no file
SMALL = 1 << 14  # bytes of JSON that take less time to read than to give to another thread


class Office:
    """name: of the model, as clients list it."""

    def __init__(self, worker: Worker, line: Line, reader: Reader, settings: Settings, metrics: Metrics):
        self.worker, self.line, self.reader, self.settings, self.metrics = worker, line, reader, settings, metrics
        self.kept = Kept(settings.kept, settings.keep_seconds)
        self.name = "kandinsky-2-2"

    def require_room(self, http: Http) -> None:
        """ApiError 503 before the server is ready, 429 where there is no room: before anything is reckoned for a request."""
        if self.worker.state != "ready":
            raise not_ready(self.worker)
        with self._counted():
            self.line.require_room(http.cookies.get(TICKET))

    def accept(self, job: Job, http: Http) -> None:
        """Put a job into the line. ApiError 429 where there is no room any more."""
        http.state.facts["job"] = job.id
        with self._counted():
            self.line.put(job, http.cookies.get(TICKET))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            if error.status == 429:
                self.metrics.rejected.inc()
            raise

    async def finish(self, job: Job, http: Http) -> None:
        """Wait until a job is over, or cancel it when its caller goes away. ApiError unless it is completed."""
        gone = asyncio.ensure_future(_gone(http))
        try:
            while True:
                seen = job.version
                if job.over:
                    break
                change = asyncio.ensure_future(job.change(seen))
                await asyncio.wait([change, gone], return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                if gone.done() and not job.over:
                    self.line.cancel(job)
                    raise ApiError(499, "the caller has gone", "gone")
        finally:
            gone.cancel()
            self.line.cancel(job)
            self.note(job, http)
        if job.state != "completed":
            raise job.error or ApiError(409, "the job was cancelled", "cancelled", headers={"X-Should-Retry": "false"})

    def note(self, job: Job, http: Http) -> None:
        """What the log says of a job."""
        facts = http.state.facts
        facts |= {"state": job.state, "pictures": len(job.drawn), "seeds": [drawn.request.seed for drawn in job.drawn]}
        if job.began:
            facts |= {"waited": round(job.began - job.queued, 3), "drew": round((job.ended or job.began) - job.began, 3)}


async def _gone(http: Http) -> None:
    """Returns when the caller has closed the connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def body_of(http: Http) -> dict[str, Any]:
    """The JSON object that a request holds; fields that are null are not there."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be application/json", "unsupported_media_type")
    try:
        data = await http.body()
    except ClientDisconnect:
        raise ApiError(499, "the caller has gone", "gone") from None
    found = parse(data) if len(data) < SMALL else await asyncio.to_thread(parse, data)
    if not isinstance(found, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    return {name: value for name, value in found.items() if value is not None}


async def form_of(http: Http) -> dict[str, Any]:
    """The fields of a multipart form: texts as they are, files as bytes. One picture may be `image` or `image[]`."""
    if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError(415, "the body must be multipart/form-data", "unsupported_media_type")
    found: dict[str, Any] = {}
    try:
        async with http.form(max_files=4, max_fields=64, max_part_size=MOST_PART) as form:
            for name, value in form.multi_items():
                name = name.removesuffix("[]")
                if name in found:
                    raise invalid(f"{name[:60]} is there twice: this server takes one", name[:60])
                if isinstance(value, str) == (name in BROUGHT):
                    raise invalid(f"{name[:60]} must be a {'file' if name in BROUGHT else 'text'}", name[:60])
                found[name] = value if isinstance(value, str) else await value.read()
    except ClientDisconnect:
        raise ApiError(499, "the caller has gone", "gone") from None
    return found


def parse(data: bytes) -> Any:
    """JSON, strictly: no field twice, no NaN, no half of a character, nothing nested beyond what Python's parser takes."""
    def once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise invalid("a field is there twice", code="invalid_json")
        return found

    def number(text: str) -> Any:
        raise invalid(f"{text} is no number of JSON", code="invalid_json")

    with suppress(ValueError, RecursionError):
        found = json.loads(data, object_pairs_hook=once, parse_constant=number)
        if b"\\ud" in data or b"\\uD" in data:  # half of a pair is no text, and no answer could repeat it
            json.dumps(found, ensure_ascii=False).encode()
        return found
    raise invalid("the body is not JSON", code="invalid_json")


def not_ready(worker: Worker) -> ApiError:
    if worker.state == "failed":
        reason = public(worker.reason, worker.pipeline.bundle.path)
        return ApiError(503, f"the server cannot draw: {reason}", "not_ready")
    return ApiError(503, "the models are being loaded: try again soon", "not_ready", headers={"Retry-After": "5"})
