"""The index of a part's tensors: for each weight, by name, the file it lies in, its offset, shape and type."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..common.errors import UserError

NAME = "weights.index.json"
WEIGHTS = "weights.bin"  # the file that graphs refer to, all float32
STORED = "stored_weights.bin"  # what a bundle has in its place where the weights are stored in narrower types, or were merged
OF_MERGE = "stored_{}_weights.bin"  # beside it: weights that a merge has put in the place of others; 1, 2 and so on
Dtype = Literal["float32", "float16", "bfloat16", "int8"]
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
TAPS = 9  # values of a 3x3 kernel
GROUP = 32  # values of int8 that share a scale
SCALE_BYTES = 2  # float16


class StoredTensor(Struct, frozen=True):
    """A tensor at rest: little-endian, in C order, `offset` bytes from the beginning of `file`, beside the index.

    shape: of the tensor as graphs take it. taps: where it is made of a stored kernel (3, 3, out, in), which lies at `offset`:
    nine factors for each index of the tensor's first axis; the others are (out, in). scales: of int8, offset of the float16
    that GROUP values of a row are multiplied by.
    """

    file: Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    offset: Annotated[int, Meta(ge=0)]
    shape: tuple[Annotated[int, Meta(ge=0)], ...]
    dtype: Dtype = "float32"
    taps: tuple[tuple[float, ...], ...] | UnsetType = UNSET
    scales: Annotated[int, Meta(ge=0)] | UnsetType = UNSET

    @property
    def rows(self) -> tuple[int, int]:
        """What lies in the file, as (rows, values of each): a row is one index of all axes but the last, or, where there are
        no taps, of the first."""
        if self.taps is not UNSET:
            return TAPS * self.shape[1], self.shape[2]
        first = self.shape[0] if len(self.shape) > 1 else 1
        return first, math.prod(self.shape) // max(first, 1)

    @property
    def length(self) -> int:
        """Bytes in the file, without scales."""
        return math.prod(self.rows) * ITEM_BYTES[self.dtype]

    @property
    def scale_shape(self) -> tuple[int, int]:
        """Rows, and the scales of each: the last group of a row may be shorter."""
        rows, values = self.rows
        return rows, -(-values // GROUP)

    @property
    def end(self) -> int:
        """Behind all that lies in the file of it, which begins at `offset` or at its scales."""
        scales = 0 if self.scales is UNSET else self.scales + SCALE_BYTES * math.prod(self.scale_shape)
        return max(self.offset + self.length, scales)

    @property
    def plausible(self) -> bool:
        """Whether its fields fit together: of a file that was read, nothing is sure."""
        if self.taps is not UNSET and (len(self.shape) != 3 or [TAPS] * self.shape[0] != [len(row) for row in self.taps]):
            return False
        return (self.dtype == "int8") == (self.scales is not UNSET) and (self.dtype != "int8" or len(self.shape) > 1)


def is_stored(file: str) -> bool:
    """Whether weights.bin is made of what lies in a file."""
    return re.fullmatch(r"stored_([0-9]+_)?weights\.bin", file) is not None


def index_of(part: str) -> str:
    """The path inside a bundle of the index of a part."""
    return f"{part}/{NAME}"


def write_index(path: Path, tensors: dict[str, StoredTensor]) -> None:
    """Write an index, a line for each tensor."""
    encode = msgspec.json.encode
    lines = (encode(name) + b": " + encode(tensor) for name, tensor in tensors.items())
    path.write_bytes(b"{\n" + b",\n".join(lines) + b"\n}\n")


def read_index(path: Path) -> dict[str, StoredTensor]:
    """The tensors of an index, in the order of the file; UserError if it is damaged."""
    try:
        tensors = msgspec.json.decode(path.read_bytes(), type=dict[str, StoredTensor])
        for name, tensor in tensors.items():
            if not tensor.plausible:
                raise ValueError(f"the fields of {name!r} do not fit together")
        return tensors
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
