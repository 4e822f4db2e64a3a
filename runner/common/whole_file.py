"""A file appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .locks import lock

PREFIX, SUFFIX = ".kandinsky-mindir-", ".part"  # a short name, for a file whose own is as long as the file system takes


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which becomes `path` when the block ends well and is gone if it does not.

    It lies beside `path`, under another name until then. Where `path` is a symbolic link, what the link names is written.
    Files that killed processes left in the same folder are removed. OSError if the folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    _remove_left(target.parent)
    beside, file = _create(target.parent)
    try:
        with file:
            yield file
            file.flush()
            os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file that its writer holds a lock on as long as it lives."""
    while True:
        beside = folder / f"{PREFIX}{secrets.token_hex(4)}{SUFFIX}"
        try:
            file = open(beside, "xb")
        except FileExistsError:
            continue
        with suppress(OSError):  # a file system without locks
            lock(file)
        if os.fstat(file.fileno()).st_nlink:
            return beside, file
        file.close()  # another process took it for a left one before it was locked


def _remove_left(folder: Path) -> None:
    for left in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError), open(left, "r+b") as file:
            lock(file, wait=False)
            left.unlink()
