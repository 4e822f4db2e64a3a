"""What a client is told when it gets no picture, in the shapes that OpenAI's and AUTOMATIC1111's clients parse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import JSONResponse

TICKET, TICKET_SECONDS = "turn", 60  # the cookie of whoever found no room, and how long it outlives its time
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Json(JSONResponse):
    """JSON by msgspec: of pictures in base64, which are megabytes, it takes a fifth of the time of Python's own encoder."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


class ApiError(Exception):
    """An answer other than a picture. param: the field that is wrong. code: a word for programs."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None, headers: Mapping[str, str] = {}):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, dict(headers)

    @property
    def type(self) -> str:
        return TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self, path: str) -> dict[str, Any]:
        if path.startswith("/sdapi/"):
            return {"error": self.code, "detail": self.message, "body": "", "errors": self.message}
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self, path: str) -> JSONResponse:
        return JSONResponse(self.body(path), self.status, headers=self.headers)


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code, param)


def public(error: object, bundle: object) -> str:
    """What an error says, without where the server's files lie. bundle: the path of its bundle."""
    path = str(bundle)
    return str(error).replace(path, "the server's bundle") if os.path.isabs(path) else str(error)


def busy(waiting: int, seconds: int, ticket: str | None) -> ApiError:
    """429. seconds: until there is room. ticket: to show then, as a cookie, for the place that is kept."""
    headers = {"Retry-After": str(seconds)}
    if ticket is not None:
        headers["Set-Cookie"] = f"{TICKET}={ticket}; Max-Age={seconds + TICKET_SECONDS}; Path=/; HttpOnly; SameSite=Strict"
    return ApiError(429, f"{waiting} requests wait already: try again in {seconds} s", "queue_full", headers=headers)


def stopping() -> ApiError:
    """503. A client that tries again at once would reach the same process."""
    return ApiError(503, "the server is stopping: try again later", "stopping",
                    headers={"Retry-After": "30", "Connection": "close"})
