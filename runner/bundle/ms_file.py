"""Lite's own format, `.ms`, kept as a recipe: where its tensors lie in files that graphs share, and all other bytes.

A `.ms` file holds its weights, so graphs of one part (batch sizes, picture sizes) would each carry a copy of them. A
recipe says which stretches of the file are weights that lie in the part's weight files. When a graph is loaded, the file
is put together in memory, without a name; the large weights stay where they are and are mapped to their places.
"""

from __future__ import annotations

import json
import lzma
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..common.errors import UserError
from ..common.memory_file import memory_file

WEIGHTS = "weights.bin"  # what all graphs of a part share, as the checkpoint has it
LITE_WEIGHTS = "lite_weights.bin"  # further tensors, which Lite's converter made
HOLE = ""  # the source of a stretch that nobody reads
UNIT = 1 << 16  # bytes: the largest page of the machines that Linux runs on, and a multiple of all others
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a source
LARGEST = 1 << 32  # bytes: what a flatbuffer's offsets reach


class Piece(NamedTuple):
    """A stretch of the `.ms` file: `length` bytes of `source`, which start at `offset`; or a HOLE."""

    position: int
    source: str
    offset: int
    length: int

    @property
    def plausible(self) -> bool:
        """Whether it may be true: of a file that was read, nothing is sure."""
        position, source, offset, length = self
        known = isinstance(source, str) and (source == HOLE or NAME.fullmatch(source))
        return bool(known) and all(type(n) is int for n in (position, offset, length)) and min(position, offset, length - 1) >= 0

    @property
    def mapped(self) -> bool:
        """Whether it is whole pages, which need not be copied."""
        return self.source != HOLE and not any(number % UNIT for number in (self.position, self.offset, self.length))


class Recipe(NamedTuple):
    """A `.ms` file: the pieces, in order, and the bytes around them, joined."""

    pieces: Sequence[Piece]
    skeleton: bytes

    @property
    def sources(self) -> list[str]:
        """The files it takes from, which lie beside it."""
        return list(dict.fromkeys(piece.source for piece in self.pieces if piece.source != HOLE))

    @property
    def size(self) -> int:
        return len(self.skeleton) + sum(piece.length for piece in self.pieces)

    @property
    def weight_bytes(self) -> int:
        """What a loaded graph holds of it."""
        return len(self.skeleton) + sum(piece.length for piece in self.pieces if piece.source != HOLE)

    def dump(self) -> bytes:
        """A line of JSON, the table of pieces, and the skeleton; LZMA-compressed."""
        return lzma.compress(json.dumps(self.pieces).encode() + b"\n" + self.skeleton)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """UserError if the file is damaged."""
        try:
            table, _, skeleton = lzma.decompress(path.read_bytes()).partition(b"\n")
            recipe = cls([Piece(*row) for row in json.loads(table)], skeleton)
            if not recipe._plausible():
                raise ValueError("its pieces do not fit together")
        except (OSError, EOFError, lzma.LZMAError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
        return recipe

    def assemble(self, path: Path, packed: Sequence[Piece] = ()) -> ModelFile:
        """The `.ms` file, in memory. path: the recipe's own, its sources lie beside it. UserError names a cut one.

        packed: what Lite need not make of the tensors at these positions: it lies beside the recipe, too.
        """
        names = dict.fromkeys([*self.sources, *(piece.source for piece in packed)])
        sources = {name: _bytes_of(path.with_name(name)) for name in names}
        for piece in (*self.pieces, *packed):
            if piece.source != HOLE and piece.offset + piece.length > sources[piece.source].size:
                raise UserError(f"{path.with_name(piece.source)} ends before what {path.name} takes from it: it is cut "
                                "or damaged; export the bundle again")
        table = "".join(
            f"{kind} {piece.position} {piece.length} {piece.offset} {path.with_name(piece.source).absolute()}\n"
            for kind, pieces in (("raw", filter(lambda piece: piece.mapped, self.pieces)), ("packed", packed))
            for piece in pieces
        )
        model = ModelFile(self.size, path, table)
        try:
            self._fill(model.fileno(), sources)
        except BaseException:
            model.close()
            raise
        return model

    def _fill(self, target: int, sources: dict[str, np.ndarray]) -> None:
        """Write all but what is mapped, from the beginning to the end."""
        skeleton, used, end = memoryview(self.skeleton), 0, 0
        with open(target, "wb", buffering=0, closefd=False) as file:
            for piece in self.pieces:
                gap = piece.position - end
                _write(file, skeleton[used : used + gap])
                if piece.source == HOLE or piece.mapped:
                    file.seek(piece.length, os.SEEK_CUR)
                else:
                    _write(file, sources[piece.source][piece.offset : piece.offset + piece.length])
                used, end = used + gap, piece.position + piece.length
            _write(file, skeleton[used:])

    def _plausible(self) -> bool:
        end = 0
        for piece in self.pieces:
            if not piece.plausible or piece.position < end:
                return False
            end = piece.position + piece.length
        return end <= self.size <= LARGEST


class MemoryFile:
    """A file in memory without a name. `path` is where this process, or one that inherits `fileno`, can open it."""

    def __init__(self):
        self._descriptor = memory_file("kandinsky-mindir-model")

    def fileno(self) -> int:
        return self._descriptor

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class ModelFile:
    """A `.ms` file in memory that has no name and is gone when it is closed; a context manager.

    size: bytes. origin: what error messages call it. table: what is to be mapped into it, as
    engine/native/mapped_weights.h reads it; `pieces` holds it as a file in memory.
    """

    def __init__(self, size: int, origin: Path, table: str):
        self.origin = origin
        self._file, self.pieces = MemoryFile(), MemoryFile()
        os.ftruncate(self.fileno(), size)
        os.write(self.pieces.fileno(), table.encode(errors="surrogateescape"))

    def fileno(self) -> int:
        return self._file.fileno()

    @property
    def path(self) -> str:
        """Where this process, or one that inherits `fileno`, can open it."""
        return self._file.path

    def close(self) -> None:
        self._file.close()
        self.pieces.close()

    def __str__(self) -> str:
        return str(self.origin)

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _write(file: BinaryIO, data) -> None:
    data = memoryview(data)
    while data:  # the system takes at most 2 GB at once
        data = data[file.write(data) :]


def _bytes_of(path: Path) -> np.ndarray:
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:  # ValueError: the file is empty
        raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
