"""The index of a part's tensors: for each weight, by name, the file it lies in, its offset, shape and type."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ..common.errors import UserError

NAME = "weights.index.json"
ITEM_BYTES = {"float32": 4}


class StoredTensor(Struct, frozen=True):
    """A tensor at rest: little-endian, in C order, `offset` bytes from the beginning of `file`, beside the index."""

    file: Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    offset: Annotated[int, Meta(ge=0)]
    shape: tuple[Annotated[int, Meta(ge=0)], ...]
    dtype: Literal["float32"] = "float32"

    @property
    def length(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


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
        return msgspec.json.decode(path.read_bytes(), type=dict[str, StoredTensor])
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
