"""The weights of a bundle as MindSpore Lite packs them on one kind of processor, in the bundle's folder ``packed``.

Lite packs every weight anew whenever it loads a model, which takes as much memory as the weights. What it would make of
them lies here in files, whose pages a loaded model uses as they are (engine/native/packed_weights.h).
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ..common.control_groups import thread_count
from ..common.errors import UserError
from .checked_files import CheckedFiles, read_text, sha256_of
from .manifest import FILE_NAME, FileInfo, Versioned, convert, inside, is_sealed, shortened
from .ms_layout import HOLE, LARGEST, LITE_VERSION, UNIT, ModelSource, Stretch

FOLDER = "packed"
FORMAT = 4
ORDER = 3  # of weights as kernels of ours pack them: it counts up when one of them comes to pack in another way
REMEDY = "run kandinsky-mindir pack on the bundle again, or remove that folder"
VECTORS = re.compile(r"(avx|sse|fma|f16c|asimd|neon|sve|fp|i8mm|bf16)")  # instructions that decide how Lite packs


class _Graph(Struct):
    layout: str
    packed: Annotated[tuple[Stretch, ...], Meta(min_length=1)]


class _MadeFor(Struct):
    bundle: str
    lite: str
    processor: str
    threads: int
    precision: str
    kernels: str


class _Made(Struct):
    """Of the manifest of the folder, what says for whom it is."""

    made_for: _MadeFor


class _File(_Made):
    """The whole manifest of the folder."""

    files: dict[str, FileInfo]
    graphs: dict[str, _Graph]


class Packed(CheckedFiles):
    """What is in the folder ``packed``.

    made_for: what it can be used with (see `here`). graphs: models by the names of their layouts in the bundle; of each,
    the name of the layout of its packed form and its packed weights.
    """

    def __init__(
        self, path: Path, files: dict[str, FileInfo], made_for: dict, graphs: dict[str, tuple[str, tuple[Stretch, ...]]],
        check: str = "once",
    ):  # fmt: skip
        super().__init__(path, files, REMEDY, check)
        self.made_for = made_for
        self.graphs = {name: ModelSource(self, *packed) for name, packed in graphs.items()}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(info.size for info in self._files.values())


def read(bundle: Path, use: dict | None = None, check: str = "once") -> Packed | None:
    """What is in the folder of a bundle; None if it has none, or one that was made for something else than `use`.

    UserError if it is damaged; of what was made for something else, nothing but its manifest is looked at.
    """
    folder = bundle / FOLDER
    if not folder.is_dir():
        return None
    manifest = folder / FILE_NAME
    try:
        text = read_text(manifest, REMEDY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{manifest} cannot be read ({error.strerror}): {REMEDY}") from None
    try:
        data = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{manifest} is not JSON ({error}): it is cut or damaged; {REMEDY}") from None
    version = convert(data, Versioned, str(manifest), REMEDY)
    if version.format != FORMAT:
        raise UserError(f"{manifest} has format {shortened(version.format)}, this version reads format {FORMAT}: {REMEDY}")
    if not is_sealed(text, version.seal):
        raise UserError(f"{manifest} is not as pack wrote it: it is damaged, or was edited; {REMEDY}")
    found = convert(data, _File, str(manifest), REMEDY)
    made_for = msgspec.structs.asdict(found.made_for)
    if use is not None and _other(made_for, use):
        return None
    files = {inside(name, f"{manifest}: files", REMEDY): info for name, info in found.files.items()}
    graphs = {path: (graph.layout, _weights(graph, files, f"{manifest}: graphs[{path!r}]"))
              for path, graph in found.graphs.items()}
    return Packed(folder, files, made_for, graphs, check)


def _weights(graph: _Graph, files: dict[str, FileInfo], where: str) -> tuple[Stretch, ...]:
    if graph.layout not in files:
        raise UserError(f"{where}: {graph.layout!r} is none of its files; {REMEDY}")
    for weight in graph.packed:
        if not weight.plausible or weight.source == HOLE or weight.position > LARGEST or weight.offset % UNIT:
            raise UserError(f"{where}: {list(weight)} is no place of a weight; {REMEDY}")
    return graph.packed


def here(bundle: Path, threads: int | None, precision: str = "float32", kernels: str | None = None) -> dict[str, str | int]:
    """What packed weights must be made for, to be used with the bundle in that folder by this process.

    Lite packs some small weights in another way where it has more threads. kernels: whose, "lite" or "own"; None: of no matter.
    """
    wanted: dict[str, str | int] = {"bundle": sha256_of(bundle / FILE_NAME), "lite": LITE_VERSION, "processor": processor(),
            "threads": thread_count(threads), "precision": precision}
    if kernels:
        wanted["kernels"] = kernels if kernels == "lite" else f"{kernels} {ORDER}"
    return wanted


def _other(made_for: dict, wanted: dict) -> list[str]:
    """The names of what is wanted otherwise than it was made for."""
    return [name for name in wanted if made_for[name] != wanted[name]]


def why_not(bundle: Path, threads: int | None, precision: str = "float32", kernels: str | None = None) -> str:
    """Why what is packed in the folder of a bundle cannot be used by this process, and what to do; "" if nothing is."""
    try:
        made_for = msgspec.structs.asdict(msgspec.json.decode((bundle / FOLDER / FILE_NAME).read_bytes(), type=_Made).made_for)
    except (OSError, ValueError, RecursionError):
        return ""
    wanted = here(bundle, threads, precision, kernels)
    other = _other(made_for, wanted)
    if "precision" in other and "kernels" in other:
        other.remove("kernels")  # they follow the precision
    if not other:
        return ""
    reasons = {"bundle": "another export of it", "lite": f"MindSpore Lite {made_for['lite']}", "processor": "another processor",
               "threads": f"{made_for['threads']} threads, not {wanted['threads']}",
               "precision": f"{made_for['precision']}, not {wanted['precision']}",
               "kernels": f"other kernels ({made_for['kernels']})"}
    chosen = [f"--{name} {made_for[name]}" for name in ("threads", "precision") if name in other]
    remedies = [f"choose {' '.join(chosen)}"] if len(chosen) == len(other) else []
    remedies += ["run kandinsky-mindir pack on the bundle again"] if precision != "float16" else []  # nothing packs for it
    return (f"what is packed in {bundle} is for {' and '.join(reasons[name] for name in other)}: models load as exported, which "
            f"is slower and takes more memory{'; ' if remedies else ''}{', or '.join(remedies)}")


def processor() -> str:
    """The machine's architecture and vector instructions."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    words = found[1].split() if found else []
    return " ".join([platform.machine(), *sorted(word for word in set(words) if VECTORS.match(word))])
