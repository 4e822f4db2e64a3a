"""A folder that appears whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runner.common import locks
from ..runner.common.errors import UserError
from ..runner.common.publishing import publish, remove
from .isolation import Killed

NOTES = ".notes"  # a folder in the unfinished one: what it is made of, and a file for each part of it that is whole
SOURCE = "source"


@contextmanager
def staged_folder(target: Path, overwrite: bool = False, source: str = "") -> Iterator[Path]:
    """A folder beside `target` that becomes `target` when the block ends well.

    It is empty, or what an interrupted run of the same `source` left: the block writes a file into its folder NOTES for
    each part that is whole, and goes on from those. Ctrl-C leaves the folder there once it has such a part, as does a
    kill, be it of a process that it has started; any other exception, another `source` and a finished run remove it.
    UserError if `target` exists (unless `overwrite`), if its parent does not, or if another process is writing it.
    """
    target = Path(os.path.abspath(target))
    check_target(target, overwrite)
    staging = target.with_name(f".{target.name}.partial")
    notes = staging / NOTES
    with _exclusive(target.with_name(f".{target.name}.lock"), target):
        try:
            if not (notes / SOURCE).is_file() or (notes / SOURCE).read_text() != source:
                remove(staging)
                notes.mkdir(parents=True)
                write_whole(notes / SOURCE, source.encode())
            yield staging
            remove(notes)
            publish(staging, target)
        except (KeyboardInterrupt, Killed) as stop:
            if done := parts_done(staging):
                kept = f"{', '.join(done)} done; the same command goes on from there (or remove {staging})"
                raise type(stop)("; ".join([*map(str, stop.args), kept])) from None
            remove(staging)
            raise
        except BaseException:
            remove(staging)
            raise


def parts_done(staging: Path) -> list[str]:
    """The parts that an unfinished folder holds whole, in the order of their making."""
    notes = sorted((staging / NOTES).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [path.stem for path in notes]


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def check_target(target: Path, overwrite: bool) -> None:
    """UserError if `target` could not be written: to be said before the work, not after it."""
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} does not exist: make it first")
    if not os.access(target.parent, os.W_OK):
        raise UserError(f"the folder {target.parent} is not writable: choose another --output")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists: choose another --output, or say --overwrite")
    if target.exists() and not (target / "manifest.json").is_file():
        raise UserError(f"{target} is not a bundle: it is not overwritten; choose another --output")


@contextmanager
def _exclusive(lock: Path, target: Path) -> Iterator[None]:
    """Only one process at a time; the lock goes away with its holder, however it ends."""
    with open(lock, "w") as file:
        try:
            locks.lock(file, wait=False)
            if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                raise BlockingIOError  # its holder has just taken it away, and a third may have made another
        except BlockingIOError:
            raise UserError(f"another export is writing {target}: wait for it, or choose another --output") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
