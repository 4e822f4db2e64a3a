"""How a picture was made: everything that generate or interpolate needs to make it again, in the text of its PNG."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError
from . import format_1
from .fetch import shorten
from .png_text import read_text

KEY = "kandinsky-mindir"  # of the text chunk that holds the recipe
FORMAT = 1

@dataclass(frozen=True)
class Recipe:
    """A picture, or a grid of them.

    command: generate or interpolate. options: its arguments, nothing left to defaults; an option that was off is not there.
    bundle: its path, as it was given. bundle_beside: the same from the picture's folder. bundle_sha256: of its manifest.json, which holds the sha256 of its other files.
    row, rows: the picture's place among all that were drawn from the seed together; row None for all of them.
    versions: of what took part, to explain a difference.
    """

    command: str
    options: dict[str, Any]
    bundle: str
    bundle_sha256: str
    row: int | None = None
    rows: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    bundle_beside: str | None = None

    def picture(self, row: int, rows: int) -> Recipe:
        """The recipe of one of the `rows` pictures that this one makes; itself, if it makes but one."""
        if rows == 1:
            return self
        options = {**self.options, "images": 1}
        if "prompt" in options:
            options["prompt"] = [options["prompt"][row // self.options["images"]]]
        return replace(self, options=options, row=row, rows=rows)

    def text(self) -> dict[str, str]:
        """Text chunks: the recipe as JSON, and ``parameters`` as other programs write it, for people and viewers."""
        return {"parameters": self._parameters(), KEY: json.dumps(asdict(self), default=np.ndarray.tolist)}

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """The recipe in a PNG file; UserError if there is none that this version understands."""
        name = shorten(str(path))
        text = _read_text(path, name)
        if text is None:
            raise UserError(f"{name} carries no recipe: only PNG files that generate or interpolate wrote do")
        try:
            data = json.loads(text, parse_constant=format_1.constant)
            if data["format"] != FORMAT:
                raise UserError(f"{name}: its recipe has format {data['format']!r}, this version reads format {FORMAT}")
            format_1.check(data)
            recipe = cls(**data)
        except UserError:
            raise
        except Exception as error:  # anything can stand in a file
            raise UserError(f"{name}: its recipe is damaged ({shorten(str(error))})") from None
        return recipe

    def _parameters(self) -> str:
        """The form of AUTOMATIC1111's web interface, which picture viewers know."""
        options = self.options
        lines = options.get("prompt") or [_mixed(item) for item in options["items"]]
        if options.get("negative_prompt"):
            lines = [*lines, f"Negative prompt: {options['negative_prompt']}"]
        height, width = options["size"]
        facts = {
            "Steps": options["steps"],
            "Sampler": options["scheduler"]["_class_name"],
            "CFG scale": options["guidance_scale"],
            "Seed": options["seed"],
            "RNG": options["rng"],
            "Size": f"{width}x{height}",
            "Model hash": self.bundle_sha256[:10],
            **({} if self.row is None else {"Picture": f"{self.row + 1} of {self.rows}"}),
        }
        text = "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in facts.items())])
        return text.encode(errors="backslashreplace").decode()  # a path may hold bytes that are not UTF-8


def _mixed(item: dict[str, Any]) -> str:
    return f"{item['weight']:g} x {item.get('text') or item['image']}"


def _read_text(path: str | Path, name: str) -> str | None:
    try:
        return read_text(path, KEY)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise UserError(f"{name} cannot be read: {shorten(reason)}")
