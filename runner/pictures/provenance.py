"""How a picture was made: everything that generate or interpolate needs to make it again, in the text of its PNG."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from ..common.errors import UserError
from ..request import Item, Request
from . import format_1
from .fetch import shorten
from .png_text import read_text

KEY = "kandinsky-mindir"  # of the text chunk that holds it
FORMAT = 2
BYTES = "file:"  # before a path that is not UTF-8, in the form of an address: JSON holds text


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Of one picture, or of a grid of all that the request makes.

    request: complete, nothing left to defaults. bundle: its path, as it was given (`as_text`).
    bundle_sha256: of its manifest.json, which holds the sha256 of its other files.
    beside: from a path in the request or `bundle` to the same relative to the folder of the PNG.
    versions: of what took part, to explain a difference.
    """

    request: Request
    bundle: str
    bundle_sha256: str
    beside: dict[str, str] = {}
    grid: bool = False
    versions: dict[str, str] = {}
    format: int = FORMAT

    def text(self) -> dict[str, str]:
        """Text chunks: all of it as JSON, and ``parameters`` as other programs write it, for people and viewers."""
        data = {"format": FORMAT, **msgspec.to_builtins(self)}
        return {"parameters": self._parameters(), KEY: json.dumps(data, allow_nan=False)}

    @classmethod
    def read(cls, path: str | Path) -> Provenance:
        """What a PNG file says of its making; UserError if it says nothing that this version understands."""
        name = shorten(str(path))
        try:
            text = read_text(path, KEY)
        except (OSError, ValueError) as error:
            raise UserError(f"{name} cannot be read: {shorten(getattr(error, 'strerror', None) or str(error))}") from None
        if text is None:
            raise UserError(f"{name} carries no recipe: only PNG files that generate or interpolate wrote do")
        try:
            data = json.loads(text, parse_constant=format_1.constant)
            found = data["format"]
            if found == format_1.FORMAT:
                data = format_1.upgrade(data)
            elif found != FORMAT:
                raise UserError(f"{name}: its recipe has format {found!r}, this version reads formats 1 and {FORMAT}")
            else:
                _require_finite(data)
            return msgspec.convert(data, cls)
        except Exception as error:  # anything can stand in a file
            if isinstance(error, UserError) and not isinstance(error.__context__, msgspec.MsgspecError):
                message = str(error)
                raise error if message.startswith(name) else UserError(f"{name}: its recipe is damaged ({message})") from None
            raise UserError(f"{name}: its recipe is damaged ({shorten(_reason(error))})") from None

    def _parameters(self) -> str:
        """The form of AUTOMATIC1111's web interface, which picture viewers know."""
        request = self.request
        negatives = request.negative_prompt or ()
        facts: Mapping[str, Any] = {
            "Steps": request.num_inference_steps,
            "Sampler": request.scheduler["_class_name"] if isinstance(request.scheduler, dict) else request.scheduler,
            "CFG scale": request.guidance_scale,
            "Seed": request.seed,
            **({} if request.strength is None else {"Denoising strength": request.strength}),
            "RNG": request.rng,
            "Size": f"{request.width}x{request.height}",
            "Model hash": self.bundle_sha256[:10],
            **({} if request.row is None else {"Picture": f"{request.row + 1} of {request.rows}"}),
        }
        return "\n".join([
            *(request.prompt or map(_mixed, request.items)),
            *(f"Negative prompt: {text}" for text in negatives[:1]),
            ", ".join(f"{key}: {value}" for key, value in facts.items()),
        ])


def versions_of(engine: str, engine_version: str, precision: str) -> dict[str, str]:
    """Of what takes part in making a picture: `versions` of its Provenance."""
    found = {**{name: version(name) for name in ("kandinsky-mindir", "numpy")}, f"lite {engine}": engine_version}
    return found if precision == "float32" else {**found, "precision": precision}


def as_text(path: str | os.PathLike) -> str:
    """A path as text that JSON can hold; `as_path` makes the path of it again."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return BYTES + urllib.parse.quote(os.fsencode(text))
    return BYTES + urllib.parse.quote(text) if text.startswith(BYTES) else text


def as_path(text: str) -> Path:
    """The path that `as_text` was given."""
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(text.removeprefix(BYTES))) if text.startswith(BYTES) else text)


def _mixed(item: Item) -> str:
    return f"{item.weight:g} x {item.text if item.text is not None else item.image or 'a picture'}"


def _require_finite(value: Any) -> None:
    """ValueError for a number that JSON does not have, or that is too large for a float."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise ValueError(f"{value} is no number of JSON")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _require_finite(item)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return str(cause if isinstance(cause, UserError) else error) or type(error).__name__
