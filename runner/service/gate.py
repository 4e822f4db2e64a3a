"""What every request passes first: who asks, from where, how much; and what every answer gets: an id and a line in the log."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .drawing.errors import ApiError
from .drawing.metrics import Metrics
from .page_files import FILES
from .settings import Settings

# Without a key: whether the process lives, and the page itself, which holds nothing of anybody.
OPEN = (*FILES, "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/favicon.ico")
CONTENT = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", "connect-src 'self'",
    "form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'",
])  # fmt: skip
HEADERS = {"Content-Security-Policy": CONTENT, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
           "X-Frame-Options": "DENY", "Cache-Control": "no-store"}  # fmt: skip
DRAIN_SECONDS = 5.0
SAFE = ("GET", "HEAD", "OPTIONS")


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, log: Callable[[dict[str, Any]], None],
                 paths: frozenset[str]):
        self._app, self._settings, self._metrics, self._log, self._paths = app, settings, metrics, log, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        headers, began = Headers(scope=scope), time.monotonic()
        given = headers.get("x-request-id", "")
        name = given if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", given) else f"req_{secrets.token_hex(12)}"
        facts: dict[str, Any] = {"request_id": name}
        scope.setdefault("state", {})["facts"] = facts  # what the routes add to the log
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = MutableHeaders(scope=message)
                found["X-Request-Id"] = name
                for header, value in HEADERS.items():
                    found.setdefault(header, value)
            await send(message)

        try:
            self._admit(scope, headers)
            await self._app(scope, _Body(receive, self._settings).receive, answer)
        except ApiError as error:
            if not status:
                if (length := headers.get("content-length", "0")).isdecimal() and int(length[:16]) <= 2 * self._settings.body:
                    await _drain(receive, 2 * self._settings.body)
                await error.response(scope["path"])(scope, receive, answer)
        finally:
            self._tell(scope, status, time.monotonic() - began, facts)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """ApiError unless the request is meant for this server, comes from no other site's page, and shows the key."""
        host, path, method = headers.get("host", ""), scope["path"], scope["method"]
        if len(headers.getlist("host")) != 1 or not self._settings.answers_to(host):
            raise ApiError(403, "the Host header names another machine: start the server with --host-name NAME if that is "
                           "its name", "wrong_host", headers={"Connection": "close"})
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        foreign = origin is not None and origin.partition("://")[2] != host
        if method not in SAFE and (foreign or site not in ("same-origin", "none")):
            raise ApiError(403, "a page of another site sent this", "cross_site")
        if self._settings.key is not None and path not in OPEN and not any(map(self._settings.knows, _keys(headers))):
            raise ApiError(401, "the key is missing or wrong: send it as Authorization: Bearer KEY", "invalid_api_key",
                           headers={"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self._settings.body:
            raise too_large(self._settings.body)

    def _tell(self, scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
        path = "/v1/jobs/ID" if scope["path"].startswith("/v1/jobs/") else "other"
        path = scope["path"] if scope["path"] in self._paths else path
        method = scope["method"] if scope["method"] in (*SAFE, "POST", "DELETE", "PUT", "PATCH") else "other"
        self._metrics.requests.labels(method, path, str(status or "gone")).inc()
        client = scope.get("client")
        self._log({"event": "request", **facts, "client": client[0] if client else None, "method": scope["method"][:16],
                   "path": scope["path"][:200], "status": status or None, "seconds": round(seconds, 4)})


class _Body:
    """The body of a request, within its size and its time."""

    def __init__(self, receive: Receive, settings: Settings):
        self._receive, self._settings = receive, settings
        self._size, self._until, self._whole = 0, time.monotonic() + settings.body_seconds, False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(self._until - time.monotonic(), 0.001))
        except asyncio.TimeoutError:
            raise ApiError(408, f"the request did not arrive within {self._settings.body_seconds:g} s", "too_slow",
                           headers={"Connection": "close", "X-Should-Retry": "false"}) from None
        self._size += len(message.get("body", b""))
        if self._size > self._settings.body:
            raise too_large(self._settings.body)
        self._whole = not message.get("more_body", False)
        return message


async def _drain(receive: Receive, most: int) -> None:
    """Read what a refused request still sends, within bounds: a client that is cut off in the middle hears no answer."""
    size, until = 0, time.monotonic() + DRAIN_SECONDS
    while size <= most and (left := until - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:
            return
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def too_large(most: int) -> ApiError:
    return ApiError(413, f"the request has more than {most >> 20} MiB", "too_large", headers={"Connection": "close"})


def _keys(headers: Headers) -> list[str]:
    """What a request shows for a key: a bearer's, or the password of basic authentication, as A1111's clients send it."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return [value.strip()]
    if kind.lower() == "basic":
        try:
            return [base64.b64decode(value, validate=True).decode().partition(":")[2]]
        except (binascii.Error, ValueError):
            pass
    return []


def log_line(facts: dict[str, Any]) -> None:
    """One line of JSON on standard error."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03}Z"
    print(json.dumps({"time": when, **facts}), file=sys.stderr, flush=True)
