"""A `.ms` file in memory, put together from a layout (ms_layout.py), for an engine to load."""

from __future__ import annotations

import os
from pathlib import Path

from ..common.memory_file import memory_file


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
    engine/native/mapped_weights.h reads it; `table` holds it as a file in memory.
    """

    def __init__(self, size: int, origin: Path, table: str):
        self.origin = origin
        self._file, self.table = MemoryFile(), MemoryFile()
        os.ftruncate(self.fileno(), size)
        os.write(self.table.fileno(), table.encode(errors="surrogateescape"))

    def fileno(self) -> int:
        return self._file.fileno()

    @property
    def path(self) -> str:
        """Where this process, or one that inherits `fileno`, can open it."""
        return self._file.path

    def close(self) -> None:
        self._file.close()
        self.table.close()

    def __str__(self) -> str:
        return str(self.origin)

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()
