"""The weights of a bundle as MindSpore Lite packs them on one kind of processor, in the bundle's folder ``packed``.

Lite packs every weight anew whenever it loads a model, which takes as much memory as the weights. What it would make of
them lies here in files, whose pages a loaded model uses as they are (engine/native/packed_weights.h).
"""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

from .checked_files import CheckedFiles, sha256_of
from ..engine.interface import thread_count
from ..engine.runtime import VERSION
from ..common.errors import UserError
from .manifest import FILE_NAME, FileInfo, inside, is_sealed
from .model_source import ModelSource
from .ms_file import HOLE, LARGEST, UNIT, Piece

FOLDER = "packed"
FORMAT = 1
REMEDY = "run kandinsky-mindir pack on the bundle again, or remove that folder"
VECTORS = re.compile(r"(avx|sse|fma|f16c|asimd|neon|sve|fp|i8mm|bf16)")  # instructions that decide how Lite packs


class Packed(CheckedFiles):
    """What is in the folder ``packed``.

    made_for: what it can be used with (see `here`). graphs: models by the names of their recipes in the bundle; of each,
    the name of the recipe of its packed form and its packed weights.
    """

    def __init__(
        self, path: Path, files: dict[str, FileInfo], made_for: dict, graphs: dict[str, tuple[str, tuple[Piece, ...]]]
    ):
        super().__init__(path, files, REMEDY)
        self.made_for = made_for
        self.graphs = {name: ModelSource(self, *packed) for name, packed in graphs.items()}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(info.size for info in self._files.values())


def read(bundle: Path, use: dict | None = None) -> Packed | None:
    """What is in the folder of a bundle; None if it has none, or one that was made for something else than `use`.

    UserError if it is damaged; of what was made for something else, nothing but its manifest is looked at.
    """
    folder = bundle / FOLDER
    if not folder.is_dir():
        return None
    manifest = folder / FILE_NAME
    try:
        text = manifest.read_bytes().decode()
        data = json.loads(text)
        if data["format"] != FORMAT or not is_sealed(text, data["seal"]):
            raise ValueError("it is not as pack wrote it")
        made_for = data["made_for"]
        if type(made_for["threads"]) is not int:
            raise ValueError("it does not say for how many threads")
        if use not in (None, made_for):
            return None
        files = {
            inside(name, FILE_NAME): FileInfo.from_json(info, f"files[{name!r}]") for name, info in data["files"].items()
        }
        graphs = {path: _graph(graph["recipe"], graph["packed"], files) for path, graph in data["graphs"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{manifest} cannot be read ({error}): {REMEDY}") from None
    return Packed(folder, files, made_for, graphs)


def _graph(recipe: str, rows: list, files: dict[str, FileInfo]) -> tuple[str, tuple[Piece, ...]]:
    if recipe not in files or not rows:
        raise ValueError(f"{recipe!r} is none of its files, or has no packed weights")
    return recipe, tuple(map(_weight, rows))


def _weight(row: list) -> Piece:
    piece = Piece(*row)
    if not piece.plausible or piece.source == HOLE or piece.position > LARGEST or piece.offset % UNIT:
        raise ValueError(f"{row} is no place of a weight")
    return piece


def here(bundle: Path, threads: int | None) -> dict[str, str | int]:
    """What packed weights must be made for, to be used with the bundle in that folder by this process.

    Lite packs some small weights in another way where it has more threads.
    """
    return {"bundle": sha256_of(bundle / FILE_NAME), "lite": VERSION, "processor": processor(),
            "threads": thread_count(threads)}


def processor() -> str:
    """The machine's architecture and vector instructions."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    words = found[1].split() if found else []
    return " ".join([platform.machine(), *sorted(word for word in set(words) if VECTORS.match(word))])
