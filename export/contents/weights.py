"""The weight file of a part: one copy of every tensor, shared by all graphs that use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...runner.bundle.stored.wide_file import HEADER, padding
from ...runner.bundle.tensor_index import NAME, StoredTensor, write_index
from ...runner.common.errors import UserError


class Sink(Protocol):
    """Where a weight file can be written to."""

    def write(self, data: Any, /) -> Any: ...

    def tell(self) -> int: ...

    def close(self) -> None: ...


class WeightsWriter:
    """Streams tensors into a weight file; a context manager. `index` maps each name to where it lies.

    The index is written beside the file at the end.

    UserError at the end if every number is zero: what a failed download or a checkpoint that was never filled holds.
    """

    def __init__(self, path: Path, file: Sink | None = None):
        """file: written instead of a file at `path` and its index, if given."""
        self.index: dict[str, StoredTensor] = {}
        self._path, self._zero = path, True
        self._alone = file is None
        self._file: Sink = file or open(path, "wb")
        self._file.write(HEADER)

    def write(self, name: str, array: np.ndarray) -> None:
        """Append a float32 tensor."""
        data = np.ascontiguousarray(array, "<f4")
        self._zero = self._zero and not data.any()
        self._file.write(padding(self._file.tell(), data.nbytes))
        self.index[name] = StoredTensor(self._path.name, self._file.tell(), data.shape)
        self._file.write(data.data)

    def __enter__(self) -> WeightsWriter:
        return self

    def __exit__(self, error, *_) -> None:
        self._file.close()
        if self.index and self._zero and error is None:
            raise UserError(f"{self._path.parent.name}: all its weights are zero: get the checkpoint again")
        if self._alone and error is None:
            write_index(self._path.with_name(NAME), self.index)
