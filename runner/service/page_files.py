"""The page for people, at `/`: a few files of this package."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.routing import Route

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("page", "easel", "gallery", "mix", "stream")},
}


def page_routes() -> list[Route]:
    folder = files(__package__) / "page"
    return [Route(path, partial(_answer, (folder / name).read_bytes(), kind), methods=["GET"])
            for path, (name, kind) in FILES.items()]  # fmt: skip


async def _answer(data: bytes, kind: str, http: Http) -> Response:
    return Response(data, media_type=kind)
