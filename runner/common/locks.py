"""What processes share: locks on files and folders, which end with the process that holds them; and what a fork leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from .errors import UserError


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def lock(file: int | HasFileno, *, wait: bool = True) -> None:
    """Lock an open file for its opener alone, until it is closed. BlockingIOError if another holds it and `wait` is false."""
    fcntl = _module()
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def unlock(file: int | HasFileno) -> None:
    """Give up a lock now. To close the file is not enough where a process was forked meanwhile, which has it open, too."""
    fcntl = _module()
    fcntl.flock(file, fcntl.LOCK_UN)


def check_system() -> None:
    """UserError where there are no such locks: on Windows."""
    _module()


@contextmanager
def locked_folder(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """A folder, locked within the block."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        lock(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)


def in_forked_child(act: Callable[[], None]) -> None:
    """Have `act` called in every process that is forked from this one, before anything else runs there.

    Only the thread that forked goes on in the child. A lock that another thread held stays locked there for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=act)


def _module() -> Any:
    try:
        import fcntl
    except ImportError:
        raise UserError("This program needs Linux: the Python that runs it has no module fcntl") from None
    return fcntl
