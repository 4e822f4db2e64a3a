"""The weights of a bundle as MindSpore Lite packs them on one kind of processor, in the bundle's folder ``packed``.

Lite packs every weight anew whenever it loads a model, which takes as much memory as the weights. What it would make of
them lies here in files, whose pages a loaded model uses as they are (engine/packed_weights.h).
"""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

from .checked_files import CheckedFiles, sha256_of
from .engine.interface import thread_count
from .engine.runtime import VERSION
from .errors import UserError
from .manifest import FILE_NAME, FileInfo, inside, is_sealed
from .model_source import ModelSource
from .ms_file import Piece

FOLDER = "packed"
FORMAT = 1
REMEDY = "run kandinsky-mindir pack on the bundle again, or remove that folder"
VECTORS = re.compile(r"(avx|sse|fma|f16c|asimd|neon|sve|fp|i8mm|bf16)")  # instructions that decide how Lite packs


class Packed(CheckedFiles):
    """The folder ``packed`` of the bundle in the folder `bundle`; UserError if it is damaged.

    made_for: the bundle, the version of Lite and the processor that it can be used with (see `here`).
    """

    def __init__(self, bundle: Path):
        folder = bundle / FOLDER
        manifest = folder / FILE_NAME
        try:
            text = manifest.read_bytes().decode()
            data = json.loads(text)
            if data["format"] != FORMAT or not is_sealed(text, data["seal"]):
                raise ValueError("it is not as pack wrote it")
            self.made_for = data["made_for"]
            files = {
                inside(name, FILE_NAME): FileInfo.from_json(info, f"files[{name!r}]") for name, info in data["files"].items()
            }
            self.graphs = {
                path: ModelSource(self, graph["recipe"], tuple(map(_piece, graph["packed"])))
                for path, graph in data["graphs"].items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{manifest} cannot be read ({error}): {REMEDY}") from None
        super().__init__(folder, files, REMEDY)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(info.size for info in self._files.values())


def _piece(row: list) -> Piece:
    piece = Piece(*row)
    if not piece.plausible:
        raise ValueError(f"{row} is no place of a weight")
    return piece


def read(bundle: Path) -> Packed | None:
    """What is in the folder of a bundle; None if it has none."""
    return Packed(bundle) if (bundle / FOLDER).is_dir() else None


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
