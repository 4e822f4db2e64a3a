"""The ASGI application: routes of all interfaces, health, metrics, the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as Http
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..schedulers import CHECKPOINT, SHORT_NAMES
from .drawing.errors import ApiError
from .fields import sized
from .gate import Gate
from .office import Office
from .openai_api import OpenAI
from .page_files import page_routes
from .sdapi import A1111

WORDS = {404: "there is nothing here", 405: "this method is not for this path"}


def make_app(office: Office, log: Callable[[dict[str, Any]], None]) -> ASGIApp:
    """log: takes the facts of each request."""
    health = _Health(office)
    routes = [*OpenAI(office).routes, *A1111(office).routes, *health.routes, *page_routes()]
    app = Starlette(routes=routes, exception_handlers={ApiError: _refuse, HTTPException: _refuse_http, Exception: _fault})
    paths = frozenset(route.path for route in routes if "{" not in route.path)
    return Gate(app, office.settings, office.metrics, log, paths)


class _Health:
    def __init__(self, office: Office):
        self._office = office

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/health", self.live, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/v1/capabilities", self.capabilities, methods=["GET"]),
        ]

    async def live(self, http: Http) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, http: Http) -> Response:
        worker = self._office.worker
        ready = worker.state == "ready" and not self._office.line.closed
        state = "stopping" if self._office.line.closed and worker.state != "failed" else worker.state
        return JSONResponse({"status": state, "waiting": len(self._office.line)}, 200 if ready else 503)

    async def metrics(self, http: Http) -> Response:
        metrics = self._office.metrics
        metrics.waiting.set(len(self._office.line))
        metrics.ready.set(self._office.worker.state == "ready")
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    async def capabilities(self, http: Http) -> Response:
        """What may be asked for, and what a request gets that leaves it open."""
        office, settings, manifest = self._office, self._office.settings, self._office.worker.pipeline.bundle.manifest
        return JSONResponse({
            "model": office.name, "sizes": sized(office.reader.sizes).split(", "), "defaults": manifest.defaults,
            "samplers": [CHECKPOINT, *SHORT_NAMES], "pictures": office.reader.takes,
            "limits": {"n": settings.images, "steps": settings.steps, "items": settings.items, "prompt": settings.prompt,
                       "body": settings.body, "pixels": settings.pixels, "queue": settings.queue},
        })  # fmt: skip


async def _refuse(http: Http, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(http.url.path)


async def _refuse_http(http: Http, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    headers = error.headers or {}
    return ApiError(error.status_code, WORDS.get(error.status_code, error.detail), code, headers=headers).response(http.url.path)


async def _fault(http: Http, error: Exception) -> Response:
    return ApiError(500, "a fault of this program: the server's log says more", "fault").response(http.url.path)
