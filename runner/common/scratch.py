"""Temporary folders that do not pile up: each process removes those that killed ones have left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PREFIX = ".kandinsky-mindir-scratch-"  # of no folder that people make: what nobody holds goes


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that is gone after the block. Its maker holds a lock on it: one that nobody holds is left over."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):  # in use, or another user's
            shutil.rmtree(folder, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with ExitStack() as stack:
            with suppress(FileNotFoundError):
                stack.enter_context(locked(folder, fcntl.LOCK_EX))
            if folder.exists():  # else one that tidies up has seen it before it was locked
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                yield folder
                return


@contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
