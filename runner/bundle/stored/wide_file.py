"""The file weights.bin, all float32, that graphs refer to; and what stands for it: weights in narrower types, or merged ones.

A part has either weights.bin itself, or stored_weights.bin, after a merge others beside it, and an index from which the bytes
of weights.bin follow. `open_weights` gives them for both.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from ...common.errors import UserError
from ..tensor_index import NAME, STORED, WEIGHTS, StoredTensor, is_stored, read_index
from .widening import widened

# The layout of MindSpore's own split export (mindspore/train/serialization.py: _split_save): a header whose first byte
# says that the numbers are little-endian, then tensors at multiples of 64 bytes; here large ones at those of whole pages,
# so that they can be mapped.
ALIGNMENT = 64
HEADER = b"\x01" + bytes(ALIGNMENT - 1)
PAGES = 1 << 16  # UNIT of ms_layout.py
LARGE = 1 << 18  # bytes: four pages of 64 KiB, of which at most one is padding; from here on a tensor can be mapped
ELEMENT = 4  # bytes of a float32
AT_ONCE = 1 << 24  # bytes that are widened before they are written


def padding(end: int, length: int) -> bytes:
    """What lies between a weight file's `end` and a further tensor of `length` bytes."""
    return bytes(-end % (PAGES if length >= LARGE else ALIGNMENT))


def wide_index(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Where graphs find each tensor: in weights.bin, which has them in the order of the index, or, in bundles that were merged
    in version 4 or 5, where the merge has put it.

    tensors: the index of a part. Where nothing stands for weights.bin it says just that.
    """
    if not any(is_stored(tensor.file) for tensor in tensors.values()):
        return dict(tensors)
    wide, end = {}, len(HEADER)
    for name, tensor in tensors.items():
        length = ELEMENT * math.prod(tensor.shape)
        end += len(padding(end, length))
        wide[name] = StoredTensor(WEIGHTS, end, tensor.shape) if is_stored(tensor.file) else tensor
        end += length
    return wide


class Source(NamedTuple):
    """What a stretch of weights.bin is made of: elements of a stored tensor from `first` on."""

    tensor: StoredTensor
    first: int

    @property
    def as_it_lies(self) -> int | None:
        """Where the bytes themselves lie in the tensor's file; None if they are made of others."""
        return None if self.tensor.dtype != "float32" or self.tensor.taps else self.tensor.offset + ELEMENT * self.first


class WideWeights:
    """The bytes of weights.bin, made as they are asked for: ``weights[start:stop]``, an array of uint8.

    folder: of the part, with its index and what it stores. size: bytes of weights.bin. UserError if they do not fit together.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        tensors = read_index(folder / NAME)
        self._data = {name: bytes_of(folder / name) for name in {tensor.file for tensor in tensors.values()} if is_stored(name)}
        self._places: list[tuple[int, int, StoredTensor]] = []  # start, end, what lies there
        for name, place in wide_index(tensors).items():
            tensor = tensors[name]
            if is_stored(tensor.file):
                if tensor.end > self._data[tensor.file].size:
                    raise UserError(f"{folder / tensor.file} does not hold {name!r} as {NAME} says: it is cut or damaged; export "
                                    "the bundle again")
                self._places.append((place.offset, place.offset + place.length, tensor))
        self._starts = [start for start, *_ in self._places]
        self.size = self._places[-1][1] if self._places else len(HEADER)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop = int(part.start or 0), int(self.size if part.stop is None else min(part.stop, self.size))
        content = np.zeros(max(stop - start, 0), np.uint8)
        if start < len(HEADER):
            header = np.frombuffer(HEADER, np.uint8)[start:stop]
            content[: header.size] = header
        for place, end, tensor in self._places[max(bisect_right(self._starts, start) - 1, 0) :]:
            if place >= stop:
                break
            low, high = max(start, place), min(stop, end)
            if low < high:
                first, last = (low - place) // ELEMENT, -((place - high) // ELEMENT)
                values = widened(tensor, self._data[tensor.file], first, last).view(np.uint8)
                skip = low - place - ELEMENT * first
                content[low - start : high - start] = values[skip : skip + high - low]
        return content

    def source(self, start: int, length: int) -> Source | None:
        """What a stretch is made of; None unless it lies in one tensor and is whole elements."""
        found = bisect_right(self._starts, start) - 1
        if found < 0 or start % ELEMENT or length % ELEMENT or start + length > self._places[found][1]:
            return None
        return Source(self._places[found][2], (start - self._places[found][0]) // ELEMENT)

    def write(self, file: BinaryIO) -> None:
        """Write all of weights.bin."""
        file.writelines(self[start : start + AT_ONCE].data for start in range(0, self.size, AT_ONCE))


def open_weights(path: Path) -> np.ndarray | WideWeights:
    """The bytes of a file that graphs refer to, by slices; UserError if it is not there, or damaged."""
    if path.name == WEIGHTS and not path.exists() and (stored := path.with_name(STORED)).exists():
        return _wide_weights(path.parent, _state(stored), _state(path.with_name(NAME)))
    return bytes_of(path)


def read_tensor(folder: Path, place: StoredTensor) -> np.ndarray:
    """A tensor as float32. folder: of the part. place: where graphs find it (`wide_index`)."""
    content = open_weights(folder / place.file)[place.offset : place.offset + place.length]
    return content.view("<f4").reshape(place.shape)


def files_behind(folder: Path, names: Iterable[str]) -> list[str]:
    """The files that are read for those of `names`, paths in the folder of a bundle."""
    found = dict[str, None]()
    for name in names:
        path, files = PurePosixPath(name), [name]
        if path.name == WEIGHTS and not (folder / name).exists() and (folder / path.with_name(STORED)).exists():
            stored = {tensor.file for tensor in read_index(folder / path.with_name(NAME)).values()}
            files = [str(path.with_name(file)) for file in (*sorted(filter(is_stored, stored | {STORED})), NAME)]
        found.update(dict.fromkeys(files))
    return list(found)


def bytes_of(path: Path) -> np.ndarray:
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:  # ValueError: the file is empty
        raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None


@lru_cache(maxsize=4)
def _wide_weights(folder: Path, *_: tuple[int, ...]) -> WideWeights:
    return WideWeights(folder)


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
