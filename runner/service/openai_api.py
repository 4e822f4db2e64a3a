"""`/v1/...`: pictures as OpenAI's clients ask for them, and jobs for what takes minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request as Http
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .drawing.errors import ApiError, Json, invalid
from .drawing.images import Form, as_base64, encode
from .drawing.jobs import Drawing, Job
from .fields import Reader, truth
from .office import Office, body_of, form_of

Reading = Callable[[Mapping[str, Any]], list[Drawing]]
# The pictures of one process have no price.
USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}


class OpenAI:
    def __init__(self, office: Office):
        self._office = office

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/v1/images/generations", self.generate, methods=["POST"]),
            Route("/v1/images/edits", self.edit, methods=["POST"]),
            Route("/v1/images/variations", self.vary, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/jobs", self.submit, methods=["POST"]),
            Route("/v1/jobs/{id}", self.poll, methods=["GET"]),
            Route("/v1/jobs/{id}", self.cancel, methods=["DELETE"]),
            Route("/v1/jobs/{id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def generate(self, http: Http) -> Response:
        return await self._answer(http, await body_of(http))

    async def edit(self, http: Http) -> Response:
        """A picture to start from (`strength` says how far to leave it), and a mask of what to repaint."""
        body = await form_of(http)
        if "image" not in body:
            raise invalid("image is missing", "image", "missing_required_parameter")
        return await self._answer(http, body, face="image_edit")

    async def vary(self, http: Http) -> Response:
        """Pictures like one that is sent: a mix of that one alone."""
        body = await form_of(http)
        if "image" not in body:
            raise invalid("image is missing", "image", "missing_required_parameter")
        return await self._answer(http, body, self._office.reader.variations)

    async def _answer(self, http: Http, body: Mapping[str, Any], reading: Reading | None = None,
                      face: str = "image_generation") -> Response:
        """reading: from a body to what to draw (None: as for a prompt). face: what the events of a stream are called."""
        self._office.require_room(http)
        reader = self._office.reader
        drawings, form, previews = await asyncio.to_thread(_read, reader, body, reading or reader.drawings)
        job = Job(drawings, form, "openai", previews)
        self._office.accept(job, http)
        if truth(body.get("stream", False), "stream"):
            told = truth(body.get("progress", False), "progress")
            return StreamingResponse(self._events(http, job, told, face), media_type="text/event-stream")
        await self._office.finish(job, http)
        return Json(self._result(job))

    async def submit(self, http: Http) -> Response:
        body = await body_of(http)
        if body.get("stream"):
            raise invalid("a job has no stream: poll it", "stream")
        self._office.require_room(http)
        reader = self._office.reader
        drawings, form, _ = await asyncio.to_thread(_read, reader, body, reader.drawings)
        job = Job(drawings, form, "job")
        self._office.accept(job, http)
        self._office.kept.add(job)
        return JSONResponse(self._described(job), 202, headers={"Location": f"/v1/jobs/{job.id}"})

    async def poll(self, http: Http) -> Response:
        return Json(self._described(self._office.kept.find(http.path_params["id"])))

    async def cancel(self, http: Http) -> Response:
        job = self._office.kept.find(http.path_params["id"])
        self._office.line.cancel(job)
        return JSONResponse(self._described(job))

    async def models(self, http: Http) -> Response:
        name = self._office.name
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "local"}]})

    def _described(self, job: Job) -> dict[str, Any]:
        found = self._office.kept.describe(job, self._office.line)
        return {**found, "result": self._result(job)} if job.state == "completed" else found

    def _result(self, job: Job) -> dict[str, Any]:
        first = job.drawn[0].request
        return {
            "created": int(time.time()),
            "data": [{"b64_json": drawn.text, "seed": drawn.request.seed, "seconds": round(drawn.seconds, 3),
                      "request": drawn.request.to_dict()} for drawn in job.drawn],
            "output_format": job.form.name, "size": f"{first.width}x{first.height}", "background": "opaque", "quality": "auto",
            "usage": USAGE, "seed": first.seed, **({"warnings": job.warnings} if job.warnings else {}),
        }  # fmt: skip

    async def _events(self, http: Http, job: Job, told: bool, face: str) -> AsyncIterator[bytes]:
        """Server-sent events: previews and pictures as OpenAI's clients parse them; progress for those who ask for it."""
        request = job.drawings[0].request
        common = {"size": f"{request.width}x{request.height}", "quality": "auto", "background": "opaque",
                  "output_format": job.form.name}
        partials = pictures = 0
        last: dict[str, Any] = {}
        try:
            while True:
                seen, over = job.version, job.over
                while partials < len(job.partials):
                    data = await asyncio.to_thread(self._preview, job.partials[partials], request, job.form)
                    yield _event(f"{face}.partial_image", b64_json=as_base64(data), partial_image_index=partials,
                                 created_at=int(time.time()), **common)
                    partials += 1
                if told and (found := self._office.kept.describe(job, self._office.line)) != last:
                    last = found
                    yield _event(f"{face}.progress", **found)
                while pictures < len(job.drawn):
                    drawn = job.drawn[pictures]
                    pictures += 1
                    extra = {"warnings": job.warnings} if over and job.warnings else {}
                    yield _event(f"{face}.completed", b64_json=drawn.text, created_at=int(time.time()),
                                 usage=USAGE, seed=drawn.request.seed, seconds=round(drawn.seconds, 3), picture=pictures,
                                 request=drawn.request.to_dict(), **common, **extra)
                if over:
                    break
                await job.change(seen)
            if job.state != "completed":
                error = job.error or ApiError(409, "the job was cancelled", "cancelled")
                yield _event("error", **error.body("/v1/"))
        finally:
            self._office.line.cancel(job)
            self._office.note(job, http)

    def _preview(self, latents: Any, request: Any, form: Form) -> bytes:
        image = self._office.worker.preview.show(latents, (request.height, request.width))
        if image is None:
            raise RuntimeError("a preview before the first picture")
        return encode(image, form)


def _read(reader: Reader, body: Mapping[str, Any], reading: Reading) -> tuple[list[Drawing], Form, int]:
    return reading(body), reader.form(body), reader.previews(body)


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))
