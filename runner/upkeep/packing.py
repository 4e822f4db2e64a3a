"""Pack the weights of a bundle for this machine's processor: what packed.py reads."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from ..bundle import packed
from ..bundle.checked_files import CheckedFiles, sha256_of
from ..bundle.manifest import FILE_NAME, FileInfo, GraphInfo, sealed
from ..bundle.ms_layout import HOLE, UNIT, Layout, ModelSource, Stretch
from ..bundle.opened import Bundle
from ..bundle.stored.wide_file import open_weights
from ..common.errors import UserError
from ..common.locks import locked_folder
from ..common.memory import as_text
from ..common.publishing import publish
from ..engine import Engine, LiteModel, ModelFileEngine

MOVE = "copy the bundle to where it can be written"
FREE = "free disk space there"
ADVICE = {errno.ENOSPC: FREE, errno.EDQUOT: FREE, errno.EROFS: MOVE, errno.EACCES: MOVE, errno.EPERM: MOVE}


class Outcome(NamedTuple):
    """What came of a graph's piece `number`. added: bytes that were not there yet; None if it is left as it is."""

    graph: GraphInfo
    number: int
    added: int | None
    seconds: float


def pack(bundle: Bundle, engine: Engine, threads: int | None = None) -> Iterator[Outcome]:
    """Write the folder ``packed`` of a bundle, piece by piece of its graphs; it is there once the iterator has ended.

    Each piece is loaded as it is and packed, and runs both ways on the same inputs: it is left out unless the outputs are
    the same, bit for bit. UserError if there is nothing to pack or no room for it.
    """
    if engine.precision == "float16":
        raise UserError("Lite's kernels in float16 keep their weights in memory of their own, so there is nothing to pack: use "
                        f"{bundle.path} as it is, or pack it with --precision float32")
    pieces = [(graph, path) for graph in bundle.manifest.graphs for path in graph.ms]
    if not (pieces and engine.takes_model_files):
        raise UserError(f"{bundle.path} has no graphs in Lite's own format that could be packed")
    try:
        with _replaced(bundle.path / packed.FOLDER) as folder:
            free = shutil.disk_usage(folder).free
            if free < bundle.weight_bytes:
                raise UserError(f"packing {bundle.path} takes about {as_text(bundle.weight_bytes)} of disk, {as_text(free)} "
                                "is left there: free some")
            packer = _Packer(bundle, cast(ModelFileEngine, engine), threads, folder)
            for graph, path in pieces:
                started = time.monotonic()
                added = packer.add(graph.part, path)
                yield Outcome(graph, graph.ms.index(path), added, time.monotonic() - started)
            packer.finish()
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "mend that, and pack it again")
        raise UserError(f"{bundle.path} cannot be packed ({error}): {advice}") from None
    vars(bundle).pop("packed", None)


class _Packer:
    """Fills `folder` with the packed weights of a bundle."""

    def __init__(self, bundle: Bundle, engine: ModelFileEngine, threads: int | None, folder: Path):
        self._bundle, self._engine, self._threads, self._folder = bundle, engine, threads, folder
        self._known: dict[tuple[str, bytes], Stretch] = {}  # by part and sha256; the position is open
        self._files: dict[str, FileInfo] = {}
        self._graphs: dict[str, ModelSource] = {}

    def add(self, part: str, path: str) -> int | None:
        """Pack the model of the layout `path`; how many bytes that adds, or None."""
        plain = ModelSource(self._bundle, path)
        with tempfile.TemporaryFile(dir=self._folder) as kept:
            with plain.assembled() as file:
                model = self._engine.pack(file, kept, threads=self._threads)
            with closing(model):
                inputs = _random(model)
                expected = model.run(inputs)
                weights = model.packed
            if not weights:
                return None
            before, known = dict(self._files), dict(self._known)
            source = self._write(plain.read(), part, path, weights, np.memmap(kept, np.uint8, "r"))
        with source.assembled() as file:
            again = self._engine.load(file, threads=self._threads)
        with closing(again):
            found = again.run(inputs)
        if [array.tobytes() for array in found] != [array.tobytes() for array in expected]:
            for name in self._files.keys() - before.keys():
                (self._folder / name).unlink()
            self._files, self._known = before, known
            return None
        self._graphs[path] = source
        return sum(self._files[name].size for name in self._files.keys() - before.keys())

    def finish(self) -> None:
        """Write the manifest; UserError if nothing was packed."""
        if not self._graphs:
            raise UserError(f"{self._bundle.path} has no weights that could be packed: it works as it is")
        data = {
            "format": packed.FORMAT,
            "made_for": packed.here(self._bundle.path, self._threads, self._engine.precision, self._engine.kernels),
            "files": {name: dataclasses.asdict(info) for name, info in self._files.items()},
            "graphs": {path: {"layout": source.layout, "packed": source.packed} for path, source in self._graphs.items()},
        }
        (self._folder / FILE_NAME).write_text(sealed(data))

    def _write(self, layout: Layout, part: str, path: str, weights: list[Stretch], content: np.ndarray) -> ModelSource:
        """Write the layout of the packed model, and beside it what no model of the part has brought yet."""
        target = self._folder / f"{path.removesuffix('.ms.layout')}.bin"
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            def put(position: int, data: np.ndarray) -> Stretch:
                key = part, hashlib.sha256(data.data).digest()
                if key not in self._known:
                    file.write(bytes(-file.tell() % UNIT if data.size >= UNIT else 0))
                    self._known[key] = Stretch(0, target.name, file.tell(), data.size)
                    file.write(data.data)
                return self._known[key]._replace(position=position)

            rows = [put(weight.position, content[weight.offset : weight.offset + weight.length]) for weight in weights]
            stretches = []
            for stretch in without(layout.stretches, {weight.position for weight in weights}):
                if stretch.source != HOLE:
                    source = open_weights((self._bundle.path / path).with_name(stretch.source))
                    stretch = put(stretch.position, source[stretch.offset : stretch.offset + stretch.length])
                stretches.append(stretch)
        made = self._folder / path
        made.write_bytes(Layout(stretches, layout.skeleton).dump())
        for each in (target, made):
            if each.stat().st_size:
                self._files[each.relative_to(self._folder).as_posix()] = FileInfo(each.stat().st_size, sha256_of(each))
            else:
                each.unlink()
        return ModelSource(CheckedFiles(self._folder, self._files, packed.REMEDY, "always"), path, rows)


def without(stretches: Sequence[Stretch], positions: set[int]) -> Iterator[Stretch]:
    """The stretches of a `.ms` file with holes for the tensors at `positions`, of which Lite reads the packed form alone."""
    end = None  # of the hole before
    for stretch in stretches:
        if stretch.position in positions or stretch.position == end:  # the rest of a tensor follows its whole pages
            end = stretch.position + stretch.length
            stretch = Stretch(stretch.position, HOLE, 0, stretch.length)
        yield stretch


def _random(model: LiteModel) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        random.standard_normal(tensor.shape).astype(tensor.dtype) if tensor.dtype == "float32"
        else random.integers(0, 2, tensor.shape).astype(tensor.dtype)  # a token, or a position: there are two of each
        for tensor in model.inputs
    ]


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target`, in place of an old one, when the block ends well; else nothing changes."""
    written = target.is_dir() and not target.is_symlink() and not target.is_mount() and (target / FILE_NAME).is_file()
    if os.path.lexists(target) and not written:
        raise UserError(f"{target} is no folder that pack wrote: remove it, or move it away")
    folder = target.with_name(f".{target.name}.partial")
    try:
        with locked_folder(target.parent.resolve(), wait=False):
            folder.mkdir(exist_ok=True)
            for leftover in folder.iterdir():  # of one that was killed
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            try:
                yield folder
                publish(folder, target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        raise UserError(f"another process is writing {target}: wait for it") from None
