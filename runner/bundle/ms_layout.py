"""Lite's own format, `.ms`, kept as a layout: where its tensors lie in files that graphs share, and all other bytes.

A `.ms` file holds its weights, so graphs of one part (batch sizes, picture sizes) would each carry a copy of them. A
layout says which stretches of the file are weights that lie in the part's weight files. When a graph is loaded, the file
is put together in memory, without a name; the large weights stay where they are and are mapped to their places.
"""

from __future__ import annotations

import lzma
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np

from ..common.errors import UserError
from . import tensor_index
from .checked_files import CheckedFiles
from .ms_file import ModelFile
from .stored.wide_file import WideWeights, files_behind, open_weights

LITE_VERSION = "2.0.0"  # of MindSpore Lite, whose format this is
WEIGHTS = tensor_index.WEIGHTS  # what all graphs of a part share, as the checkpoint has it
LITE_WEIGHTS = "lite_weights.bin"  # further tensors, which Lite's converter made
HOLE = ""  # the source of a stretch that nobody reads
UNIT = 1 << 16  # bytes: the largest page of the machines that Linux runs on, and a multiple of all others
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a source
LARGEST = 1 << 32  # bytes: what a flatbuffer's offsets reach
MOST_BYTES = 1 << 27  # of a layout, expanded: the largest of the shipped checkpoint takes half a megabyte
DECOMPRESSOR = 1 << 26  # bytes that expanding may take beside that: eight times the dictionary that the writer uses


class Stretch(NamedTuple):
    """A stretch of the `.ms` file: `length` bytes of `source`, which start at `offset`; or a HOLE."""

    position: int
    source: str
    offset: int
    length: int

    @property
    def plausible(self) -> bool:
        """Whether it may be true: of a file that was read, nothing is sure."""
        known = self.source == HOLE or NAME.fullmatch(self.source)
        return bool(known) and min(self.position, self.offset, self.length - 1) >= 0

    @property
    def mapped(self) -> bool:
        """Whether it is whole pages, which need not be copied."""
        return self.source != HOLE and not any(number % UNIT for number in (self.position, self.offset, self.length))


class Layout(NamedTuple):
    """A `.ms` file: the stretches, in order, and the bytes around them, joined."""

    stretches: Sequence[Stretch]
    skeleton: bytes

    @property
    def sources(self) -> list[str]:
        """The files it takes from, which lie beside it."""
        return list(dict.fromkeys(stretch.source for stretch in self.stretches if stretch.source != HOLE))

    @property
    def size(self) -> int:
        return len(self.skeleton) + sum(stretch.length for stretch in self.stretches)

    @property
    def weight_bytes(self) -> int:
        """What a loaded graph holds of it."""
        return len(self.skeleton) + sum(stretch.length for stretch in self.stretches if stretch.source != HOLE)

    def dump(self) -> bytes:
        """A line of JSON, the table of stretches, and the skeleton; LZMA-compressed."""
        return lzma.compress(msgspec.json.encode(self.stretches) + b"\n" + self.skeleton)

    @classmethod
    def read(cls, path: Path) -> Layout:
        """UserError if the file is damaged."""
        try:
            table, _, skeleton = _decompressed(path.read_bytes()).partition(b"\n")
            layout = cls(msgspec.json.decode(table, type=list[Stretch]), skeleton)
            if not layout._plausible():
                raise ValueError("its stretches do not fit together")
        except (OSError, EOFError, lzma.LZMAError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
        return layout

    def assemble(self, path: Path, packed: Sequence[Stretch] = ()) -> ModelFile:
        """The `.ms` file, in memory. path: the layout's own, its sources lie beside it. UserError names a cut one.

        packed: what Lite need not make of the tensors at these positions: it lies beside the layout, too.
        """
        if "\n" in str(path.absolute()):  # it would end a line of the table
            raise UserError(f"the path {str(path.absolute())!r} has a line break, which the bridge to Lite cannot take: "
                            "move the bundle to another folder")
        names = dict.fromkeys([*self.sources, *(stretch.source for stretch in packed)])
        sources = {name: open_weights(path.with_name(name)) for name in names}
        for stretch in (*self.stretches, *packed):
            if stretch.source != HOLE and stretch.offset + stretch.length > sources[stretch.source].size:
                raise UserError(f"{path.with_name(stretch.source)} ends before what {path.name} takes from it: it is cut "
                                "or damaged; export the bundle again")
        table = [_row(stretch, path, sources) for stretch in self.stretches if stretch.mapped]
        table += [f"packed {stretch.position} {stretch.length} {stretch.offset} {path.with_name(stretch.source).absolute()}\n"
                  for stretch in packed]
        model = ModelFile(self.size, path, "".join(table))
        try:
            self._fill(model.fileno(), sources)
        except BaseException:
            model.close()
            raise
        return model

    def _fill(self, target: int, sources: Mapping[str, np.ndarray | WideWeights]) -> None:
        """Write all but what is mapped, from the beginning to the end."""
        skeleton, used, end = memoryview(self.skeleton), 0, 0
        with open(target, "wb", buffering=0, closefd=False) as file:
            for stretch in self.stretches:
                gap = stretch.position - end
                _write(file, skeleton[used : used + gap])
                if stretch.source == HOLE or stretch.mapped:
                    file.seek(stretch.length, os.SEEK_CUR)
                else:
                    _write(file, sources[stretch.source][stretch.offset : stretch.offset + stretch.length])
                used, end = used + gap, stretch.position + stretch.length
            _write(file, skeleton[used:])

    def _plausible(self) -> bool:
        end = 0
        for stretch in self.stretches:
            if not stretch.plausible or stretch.position < end:
                return False
            end = stretch.position + stretch.length
        return end <= self.size <= LARGEST


def _decompressed(data: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECOMPRESSOR)
    content = decompressor.decompress(data, MOST_BYTES)
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"it is cut, too long, or holds more than {MOST_BYTES} bytes")
    return content


def _write(file: BinaryIO, data) -> None:
    data = memoryview(data)
    while data:  # the system takes at most 2 GB at once
        data = data[file.write(data) :]


def _row(stretch: Stretch, layout: Path, sources: Mapping[str, np.ndarray | WideWeights]) -> str:
    """A line of the table of a ModelFile for whole pages: where they lie, or what they are made of.

    The latter is "stored POSITION LENGTH FIRST TYPE OFFSET ROW COUNT SCALES TAPS [FACTOR...] PATH": elements from FIRST on of a
    tensor whose values lie at OFFSET in rows of ROW; SCALES is 0, or where those of int8 lie. TAPS is the number of factors, 0
    or nine for each COUNT elements.
    """
    weights, place = sources[stretch.source], f"{stretch.position} {stretch.length}"
    if not isinstance(weights, WideWeights):
        return f"raw {place} {stretch.offset} {layout.with_name(stretch.source).absolute()}\n"
    source = weights.source(stretch.offset, stretch.length)
    if source is None:
        raise UserError(f"{layout} takes bytes of {stretch.source} that are not of one tensor: it is damaged; export the bundle "
                        "again")
    tensor, path = source.tensor, weights.folder.absolute() / source.tensor.file
    if (start := source.as_it_lies) is not None and not start % UNIT:
        return f"raw {place} {start} {path}\n"
    factors = [factor for row in tensor.taps or () for factor in row]
    words = (source.first, tensor.dtype, tensor.offset, tensor.rows[1], math.prod(tensor.shape[1:]), tensor.scales or 0,
             len(factors), *factors)
    return f"stored {place} {' '.join(map(str, words))} {path}\n"


class ModelSource(NamedTuple):
    """The `.ms` model of a graph, or of a piece of one.

    layout: the name of its layout in `files`, with its sources beside it. packed: weights as Lite packs them; the
    position of each is its tensor's.
    """

    files: CheckedFiles
    layout: str
    packed: Sequence[Stretch] = ()

    def read(self) -> Layout:
        return Layout.read(self.files.file(self.layout))

    def widens(self, stretch: Stretch) -> bool:
        """Whether a stretch is made when it is read, as the weights are stored in narrower types."""
        weights = open_weights((self.files.path / self.layout).with_name(stretch.source))
        source = weights.source(stretch.offset, stretch.length) if isinstance(weights, WideWeights) else None
        return source is not None and (source.as_it_lies is None or source.as_it_lies % UNIT != 0)

    @contextmanager
    def assembled(self) -> Iterator[ModelFile]:
        """The file, to load within the block; UserError if one of its files is damaged."""
        layout = self.read()
        names = dict.fromkeys([*layout.sources, *(stretch.source for stretch in self.packed)])
        sources = files_behind(self.files.path, (str(PurePosixPath(self.layout).with_name(name)) for name in names))
        with self.files.reading(self.layout, *sources), layout.assemble(self.files.path / self.layout, self.packed) as file:
            yield file
