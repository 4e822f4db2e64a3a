"""Folders of this package outside bundles: the cache, and temporary ones, of which each process removes those that killed
ones have left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .locks import locked_folder

PREFIX = ".kandinsky-mindir-scratch-"  # of no folder that people make: what nobody holds goes

CACHE_VARIABLE = "KANDINSKY_MINDIR_CACHE"


def cache_folder() -> Path:
    """Where downloads of this package go: $KANDINSKY_MINDIR_CACHE, else the XDG cache. UserError if nothing names one."""
    base = os.environ.get(CACHE_VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache").absolute() / "kandinsky-mindir"
    except RuntimeError:  # no HOME, and the system does not know the user
        raise UserError(f"This user has no home folder for MindSpore Lite: set {CACHE_VARIABLE} to a folder where it is "
                        "installed, or that you can write to") from None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that is gone after the block. Its maker holds a lock on it: one that nobody holds is left over."""
    for folder in _temporary_files().glob(f"{PREFIX}*"):
        with suppress(OSError), locked_folder(folder, wait=False):  # in use, or another user's
            shutil.rmtree(folder, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with ExitStack() as stack:
            with suppress(FileNotFoundError):
                stack.enter_context(locked_folder(folder))
            if folder.exists():  # else one that tidies up has seen it before it was locked
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                yield folder
                return


def _temporary_files() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise UserError(f"There is no folder for temporary files ({error.strerror}): set TMPDIR to one that you can write "
                        "to") from error
