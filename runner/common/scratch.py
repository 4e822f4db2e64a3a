"""Temporary folders that do not pile up: each process removes those that killed ones have left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .locks import locked_folder

PREFIX = ".kandinsky-mindir-scratch-"  # of no folder that people make: what nobody holds goes


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
