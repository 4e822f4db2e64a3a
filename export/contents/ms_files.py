"""Lowered graphs in Lite's own format, `.ms`: converted in the background, kept as layouts that share the weights."""

from __future__ import annotations

import hashlib
import struct
import tempfile
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
from flatbuffers import encode, packer
from flatbuffers.table import Table
from mindspore.train.mind_ir_pb2 import ModelProto

from ...runner.bundle.ms_layout import HOLE, LITE_WEIGHTS, UNIT, WEIGHTS, Layout, Stretch
from ...runner.bundle.stored.wide_file import LARGE, open_weights, padding
from ...runner.bundle.tensor_index import StoredTensor
from ...runner.common.errors import UserError
from ...runner.engine import Engine, ModelFileEngine
from ..graphs.mindir import weight_bytes
from .weights import WeightsWriter

IDENTIFIER = b"MSL2"  # of Lite 2's files, after the offset of the root table
# Fields of Lite 2.0's schema (mindspore/lite/schema/model.fbs), as flatbuffers counts them: field n is at 4 + 2 n.
ALL_TENSORS = 4 + 2 * 7  # of MetaGraph
TENSOR_DATA = 4 + 2 * 6  # of Tensor
SMALLEST_STRETCH = 512  # bytes: below, a row of the table costs about what it saves
# A flatbuffer ends at 2 GiB. Beyond, Lite 2.0 puts weights into a second file, and loading that never returned.
LARGEST_WEIGHTS = 1_500_000_000  # below: smaller pieces need less memory while they are converted and loaded
FARTHEST = 2**31 - 1  # bytes between a reference and what it refers to, where Lite's check of a file accepts it
AT_A_TIME = 2  # conversions: each takes one core, and up to four times the memory of its weights
LARGE_WEIGHTS = 200_000_000  # of which one is converted at a time


class MsWriter:
    """Converts the lowered graphs of a part while the next ones compile, and writes their layouts; a context manager.

    engine: one that cannot convert makes this do nothing. store: of the part.
    """

    def __init__(self, engine: Engine, store: WeightStore):
        self._engine, self._store = engine, store
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        self._large = threading.Lock()
        self._started: deque[tuple[Future, Path, Path]] = deque()

    @property
    def possible(self) -> bool:
        return self._engine.takes_model_files

    def start(self, lowered: ModelProto, layout: Path) -> None:
        """Start to convert a graph of at most LARGEST_WEIGHTS, once there are no more than AT_A_TIME under way."""
        while len(self._started) >= AT_A_TIME:
            self._finish_first()
        ms = layout.with_suffix("")
        self._started.append((self._pool.submit(self._convert, lowered, ms), ms, layout))

    def finish(self) -> None:
        while self._started:
            self._finish_first()

    def _convert(self, lowered: ModelProto, ms: Path) -> None:
        large = weight_bytes(lowered) > LARGE_WEIGHTS
        with self._large if large else nullcontext(), tempfile.TemporaryDirectory(dir=ms.parent, prefix=".convert-") as own:
            path = Path(own, ms.with_suffix(".mindir").name)
            _write_alone(lowered, self._store.folder, path)
            cast(ModelFileEngine, self._engine).convert(path, ms)

    def _finish_first(self) -> None:
        """Write the next layout, in the order of `start` so that files come out the same each time."""
        conversion, ms, layout = self._started.popleft()
        conversion.result()
        write_layout(ms, self._store, layout)
        ms.unlink()

    def __enter__(self) -> MsWriter:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)


def _write_alone(lowered: ModelProto, folder: Path, path: Path) -> None:
    """Write a graph with a weight file of its own, which has nothing else: Lite reads the file whole, some times over."""
    model = ModelProto()
    model.CopyFrom(lowered)
    with WeightsWriter(path.with_name(WEIGHTS)) as writer:
        for parameter in model.graph.parameter:
            place = parameter.external_data
            content = open_weights(folder / place.location)[place.offset : place.offset + place.length]
            writer.write(parameter.name, content.view("<f4"))
            place.location, place.offset = WEIGHTS, writer.index[parameter.name].offset
    path.write_bytes(model.SerializeToString())


class WeightStore:
    """The tensors that the `.ms` files of a part may take from: its weights, and what `split` adds beside them.

    folder: the part's. index: where each tensor lies.
    """

    def __init__(self, folder: Path, index: Mapping[str, StoredTensor]):
        self.folder = folder
        self._stretches: dict[bytes, Stretch] = {}  # by the sha256 of their bytes in the `.ms` file; the position is open
        self._unread: dict[int, list[StoredTensor]] = defaultdict(list)  # by length: most graphs need but some of them
        for place in index.values():
            self._unread[place.length].append(place)

    def split(self, ms: Path) -> Layout:
        """The layout of a `.ms` file. Tensors that no file of the part holds are appended to its lite_weights.bin.

        Large tensors move behind the file, each to whole pages, so that they can be mapped; where they were is a hole.
        """
        data = np.memmap(ms, np.uint8, "c")  # changes stay in memory
        stretches, moved, skeleton, end, place = [], [], [], 0, data.size
        for position, length, field in sorted(_tensors(data, ms)):
            if length < SMALLEST_STRETCH:
                continue
            stretch = self._stretch(data[position : position + length])
            if length < LARGE:
                stretches.append(stretch._replace(position=position))
            else:
                stretches.append(Stretch(position, HOLE, 0, length))
                place += 4 + -(place + 4) % UNIT  # behind the vector's length
                if place - 4 - field > FARTHEST:
                    raise UserError(f"{ms.name}: a weight would lie too far from what refers to it: please report this")
                struct.pack_into("<I", data.data, field, place - 4 - field)
                moved.append(stretch._replace(position=place))
                place += length
            skeleton.append(data[end:position])
            end = position + length
        skeleton.append(data[end:])
        end = data.size
        for stretch in moved:
            if end < stretch.position - 4:
                stretches.append(Stretch(end, HOLE, 0, stretch.position - 4 - end))
            skeleton.append(np.frombuffer(struct.pack("<I", stretch.length), np.uint8))
            stretches += _whole_pages(stretch)
            end = stretch.position + stretch.length
        return Layout(stretches, b"".join(part.tobytes() for part in skeleton))

    def know(self, layout: Layout) -> None:
        """Take from lite_weights.bin what a layout of an earlier run has there."""
        whole: list[Stretch] = []
        for stretch in layout.stretches:
            last = whole[-1] if whole else Stretch(0, HOLE, 0, 0)
            end = last.source, last.position + last.length, last.offset + last.length
            if end == (stretch.source, stretch.position, stretch.offset):  # the rest of one that is mapped
                whole[-1] = last._replace(length=last.length + stretch.length)
            else:
                whole.append(stretch)
        for stretch in whole:
            if stretch.source == LITE_WEIGHTS:
                file = np.memmap(self.folder / LITE_WEIGHTS, np.uint8, "r")
                content = file[stretch.offset : stretch.offset + stretch.length]
                self._stretches.setdefault(_digest(content), stretch._replace(position=0))

    def _stretch(self, content: np.ndarray) -> Stretch:
        self._read(content.size)
        key = _digest(content)
        if key not in self._stretches:
            with open(self.folder / LITE_WEIGHTS, "ab") as file:
                file.write(padding(file.tell(), content.size))
                self._stretches[key] = Stretch(0, LITE_WEIGHTS, file.tell(), content.size)
                file.write(content.data)
        return self._stretches[key]

    def _read(self, length: int) -> None:
        """Add the part's weights of so many bytes to the stretches."""
        for place in self._unread.pop(length, ()):
            content = open_weights(self.folder / place.file)[place.offset : place.offset + length]
            self._stretches.setdefault(_digest(content), Stretch(0, place.file, place.offset, length))


def write_layout(ms: Path, store: WeightStore, path: Path) -> None:
    """Split the file `ms` and write its layout to `path`, once it is sure that the same tensors come out of it."""
    path.write_bytes(store.split(ms).dump())
    layout, before = Layout.read(path), np.memmap(ms, np.uint8, "r")
    with layout.assemble(path) as model:
        after = np.memmap(model.path, np.uint8, "r")
        mapped = {stretch.position: stretch for stretch in layout.stretches if stretch.mapped}
        for (position, length, _), (place, found, _) in zip(_tensors(before, ms), _tensors(after, ms), strict=True):
            tensor = after[place : place + found]
            if stretch := mapped.get(place):
                source = open_weights(path.with_name(stretch.source))[stretch.offset : stretch.offset + stretch.length]
                tensor = np.concatenate([source, tensor[stretch.length :]])
            if not np.array_equal(before[position : position + length], tensor):
                raise UserError(f"{ms.name} does not come out of its layout as it was: please report this")


def _whole_pages(stretch: Stretch) -> list[Stretch]:
    """A stretch as one that can be mapped, and the rest of it."""
    length = stretch.length // UNIT * UNIT
    rest = Stretch(stretch.position + length, stretch.source, stretch.offset + length, stretch.length - length)
    return [stretch._replace(length=length), *([rest] if rest.length else [])]


def _tensors(data: np.ndarray, path: Path) -> list[tuple[int, int, int]]:
    """(position, length, place of the reference to it) of the data of each tensor in a `.ms` file, a flatbuffer."""
    try:
        if data[4:8].tobytes() == IDENTIFIER and (found := list(_vectors(data))):
            return found
    except (struct.error, TypeError, ValueError):  # it points outside itself
        pass
    raise UserError(f"{path.name} is not a .ms file of MindSpore Lite 2: please report this")


def _vectors(data: np.ndarray) -> Iterator[tuple[int, int, int]]:
    content = data.data  # what is read of it are Python's numbers, which do not overflow
    graph = Table(content, encode.Get(packer.uoffset, content, 0))
    tensors = graph.Offset(ALL_TENSORS)
    for index in range(graph.VectorLen(tensors) if tensors else 0):
        tensor = Table(content, graph.Indirect(graph.Vector(tensors) + 4 * index))
        if field := tensor.Offset(TENSOR_DATA):
            position, length = tensor.Vector(field), tensor.VectorLen(field)
            if position + length > data.size:
                raise ValueError
            yield position, length, tensor.Pos + field


def _digest(content: np.ndarray) -> bytes:
    return hashlib.sha256(content.data).digest()
