"""Weights in the types that a bundle stores them in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from msgspec import UNSET

from ...runner.bundle.stored.wide_file import ALIGNMENT, wide_index
from ...runner.bundle.tensor_index import (
    GROUP,
    ITEM_BYTES,
    NAME,
    SCALE_BYTES,
    STORED,
    TAPS,
    Dtype,
    StoredTensor,
    write_index,
)
from ...runner.common.errors import UserError
from .weights import Sink

if TYPE_CHECKING:
    from ..checkpoint.tensor_names import Weight

CHECKPOINT = "checkpoint"  # store each tensor in the type that the checkpoint has it in
CHOICES = (CHECKPOINT, "float32", "float16", "bfloat16", "int8")
OF_CHECKPOINT: dict[str, Dtype] = {"F16": "float16", "BF16": "bfloat16"}  # other types are stored as float32
LARGEST_INT8 = 127
SMALLEST_INT8 = 4096  # values: what smaller tensors save is nothing beside what they lose
# MoVQ draws the picture itself, in 1 % of all weights: with int8 these stay float16.
NOT_INT8 = ("movq",)


def type_of_part(part: str, choice: str, weights: Iterable[Weight]) -> str:
    """What a part is stored as, one of CHOICES, if `choice` is chosen: "float32" if no other type would come of it."""
    if choice == "int8" and part in NOT_INT8:
        return "float16"
    if choice == CHECKPOINT and not any(weight.dtype in OF_CHECKPOINT for weight in weights):
        return "float32"
    return choice


def stored_bytes(shapes: Mapping[str, Sequence[int]], types: Mapping[str, str], choice: str) -> int:
    """About what a checkpoint's tensors take on disk. types: of each, as safetensors calls it. choice: one of CHOICES."""
    scales = SCALE_BYTES / GROUP if choice == "int8" else 0
    return int(sum(math.prod(shape) * (ITEM_BYTES[_chosen(choice, types[name])] + scales) for name, shape in shapes.items()))


def _chosen(choice: str, dtype: str) -> Dtype:
    return OF_CHECKPOINT.get(dtype, "float32") if choice == CHECKPOINT else cast(Dtype, choice)


class StoredWriter:
    """Streams weights into the stored file of a part; a context manager. `index`: where graphs find each (`wide_index`).

    The index of what is stored is written beside the file at the end. UserError then if every number is zero.
    """

    def __init__(self, folder: Path, choice: str, file: Sink | None = None):
        """choice: one of CHOICES. file: written instead of the stored file and its index, if given."""
        self._folder, self._choice, self._alone, self._zero = folder, choice, file is None, True
        self._file: Sink = file or open(folder / STORED, "wb")
        self._stored: dict[str, StoredTensor] = {}
        self._kernels: dict[str, StoredTensor] = {}

    @property
    def index(self) -> dict[str, StoredTensor]:
        return wide_index(self._stored)

    def write(self, weight: Weight) -> None:
        """Append a tensor, or the kernel that it is made of unless another was made of that, too."""
        if weight.taps is None:
            self._stored[weight.name] = self._append(weight.stored(), weight)
            return
        if weight.kernel not in self._kernels:
            self._kernels[weight.kernel] = self._append(weight.stored(), weight)
        kernel = self._kernels[weight.kernel]
        taps = tuple(tuple(map(float, row)) for row in weight.taps)
        self._stored[weight.name] = StoredTensor(STORED, kernel.offset, (len(taps), *kernel.shape[2:]), kernel.dtype, taps,
                                                 kernel.scales)

    def _append(self, array: np.ndarray, weight: Weight) -> StoredTensor:
        self._zero = self._zero and not array.any()
        encoded = encode(array, _chosen(self._choice, weight.dtype), 1 if weight.taps is None else TAPS)
        offset = self._put(encoded.values)
        scales = UNSET if encoded.scales is None else self._put(encoded.scales)
        return StoredTensor(STORED, offset, array.shape, encoded.dtype, UNSET, scales)

    def _put(self, array: np.ndarray) -> int:
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        offset = self._file.tell()
        self._file.write(np.ascontiguousarray(array).data)
        return offset

    def __enter__(self) -> StoredWriter:
        return self

    def __exit__(self, error, *_) -> None:
        self._file.close()
        if self._stored and self._zero and error is None:
            raise UserError(f"{self._folder.name}: all its weights are zero: get the checkpoint again")
        if self._alone and error is None:
            write_index(self._folder / NAME, self._stored)


class Encoded(NamedTuple):
    """An array as it is stored. values: of a type of their own, bfloat16 as uint16. scales: of int8, (rows, groups)."""

    dtype: Dtype
    values: np.ndarray
    scales: np.ndarray | None = None


def encode(array: np.ndarray, dtype: Dtype, planes: int = 1) -> Encoded:
    """A finite float32 array in the type `dtype`, rounded to nearest.

    What has one axis (biases, factors of norms) is rounded nowhere: it stays float32 where float16 does not hold it exactly,
    or bfloat16, if that is the type. So does a tensor with values that float16 has no room for. int8: see `quantized`; what
    that is too small for is stored as for float16. planes: how many indices of its first axes are no rows of their own.
    """
    array = np.ascontiguousarray(array, "<f4")
    if dtype == "int8" and array.ndim > 1 and array.size >= SMALLEST_INT8:
        return quantized(array, planes)
    if dtype == "float32":
        return Encoded("float32", array)
    narrow: Dtype
    if dtype == "bfloat16":
        narrow, bits = "bfloat16", array.view("<u4")
        values: np.ndarray = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
        back = (values.astype("<u4") << 16).view("<f4")
    else:
        narrow = "float16"
        with np.errstate(over="ignore"):
            values = array.astype("<f2")
        back = values.astype("<f4")
    exact = np.array_equal(back.view("<u4"), array.view("<u4"))
    return Encoded(narrow, values) if exact or (array.ndim > 1 and np.isfinite(back).all()) else Encoded("float32", array)


def quantized(array: np.ndarray, planes: int = 1) -> Encoded:
    """An array in int8: GROUP successive values of a row share a scale, of which each is a multiple from -127 to 127.

    A scale is the smallest float16 that reaches the largest value. Its products with whole numbers of seven bits are exact
    in float32. planes: see `encode`; a kernel (3, 3, out, in) has a row for each of its nine places and outputs.
    """
    count = planes * array.shape[2 if planes > 1 else 0]
    flat = array.reshape(count, -1)
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % GROUP))).reshape(count, -1, GROUP)
    exact = np.abs(padded).max(axis=2) / np.float32(LARGEST_INT8)
    with np.errstate(over="ignore"):
        scales = exact.astype("<f2")
    scales = np.where(scales.astype("<f4") < exact, np.nextafter(scales, np.float16(np.inf)), scales).astype("<f2")
    if not np.isfinite(scales).all():
        return Encoded("float32", array)
    steps = np.where(scales == 0, 1, scales).astype("<f4")
    values = np.rint(padded / steps[:, :, None]).astype(np.int8).reshape(count, -1)[:, : flat.shape[1]]
    return Encoded("int8", values.reshape(array.shape), scales)
