"""A folder that appears whole or not at all: written beside its place, then renamed. What is done in it is not lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runner.bundle.manifest import FILE_NAME
from ..runner.common import locks
from ..runner.common.errors import UserError
from ..runner.common.publishing import publish, remove

NOTES = ".notes"  # a folder in the unfinished one: what it is made of, and a file for each part of it that is whole
SOURCE = "source"


class WrongBundle(UserError):
    """A bundle is whole, and computes something else than it should."""


@contextmanager
def staged_folder(target: Path, overwrite: bool = False, source: str = "") -> Iterator[Path]:
    """A folder beside `target` that becomes `target` when the block ends well. A link is followed: it stays one.

    It is empty, or has what an earlier run left that did not end well. The block calls `note_part` for each part that is
    whole; `noted` says later of what the part was made. Once there is one, the folder stays there whatever ends the
    block, and the error says so. All of it is found again if `source` is the same; else, the files of the parts.
    WrongBundle leaves it as TARGET.failed, a bundle that can be looked into.
    UserError if `target` exists (unless `overwrite`), if its parent does not, or if another process is writing it.
    """
    target = real(target)
    check_target(target, overwrite)
    staging = target.with_name(f".{target.name}.partial")
    with _exclusive(target.with_name(f".{target.name}.lock"), target):
        try:
            _find_again(staging, failed_name(target))
            if not (staging / NOTES / SOURCE).is_file() or (staging / NOTES / SOURCE).read_text() != source:
                _keep_parts_alone(staging)
                (staging / NOTES).mkdir(parents=True, exist_ok=True)
                write_whole(staging / NOTES / SOURCE, source.encode())
            yield staging
            remove(staging / NOTES)
            publish(staging, target)
        except WrongBundle as error:
            failed = failed_name(target)
            if failed.exists() and not (failed / FILE_NAME).is_file():  # somebody else's
                failed = staging
            else:
                publish(staging, failed)
            raise UserError(f"{error}; {failed} keeps the bundle: kandinsky-mindir verify {failed} --bisect names the layer"
                            ) from None
        except BaseException as error:
            with suppress(OSError):  # of a full disk, perhaps: the error that is there says more
                if done := parts_done(staging):
                    _remove_unfinished(staging)
                    kept = f"{', '.join(done)} done; the same command goes on from there (or remove {staging})"
                    raise _with(error, kept) from None
                remove(staging)
            raise


def real(path: str | os.PathLike[str]) -> Path:
    """The path without links, dots and a slash at its end."""
    return Path(os.path.realpath(path))


def failed_name(target: Path) -> Path:
    """Where a bundle stays that computes something else than it should."""
    return target.with_name(f"{target.name}.failed")


def note_part(staging: Path, name: str, source: str, graphs: list) -> None:
    """Note that the part in the folder `name` is whole. source: what decides its bytes. graphs: what a manifest says."""
    files = sorted(path.name for path in (staging / name).iterdir())
    content = json.dumps({"source": source, "graphs": graphs, "files": files})
    write_whole(staging / NOTES / f"{name}.json", content.encode())


def noted(staging: Path, name: str, source: str) -> list | None:
    """The graphs of a part that is whole and made of `source`, as they were noted; else None."""
    note = _read_note(staging / NOTES / f"{name}.json")
    return note["graphs"] if note and note["source"] == source else None


def forget_part(staging: Path, name: str) -> None:
    """Make a part one that has not been written."""
    (staging / NOTES / f"{name}.json").unlink(missing_ok=True)
    remove(staging / name)


def parts_done(staging: Path) -> list[str]:
    """The parts that an unfinished folder holds whole, in the order of their making."""
    notes = sorted((staging / NOTES).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [path.stem for path in notes if _read_note(path)]


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def check_target(target: Path, overwrite: bool) -> None:
    """UserError if `target` could not be written: to be said before the work, not after it."""
    target = real(target)
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} does not exist: make it first")
    if not os.access(target.parent, os.W_OK):
        raise UserError(f"the folder {target.parent} is not writable: choose another --output")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists: choose another --output, or say --overwrite")
    if target.exists() and not (target / FILE_NAME).is_file():
        raise UserError(f"{target} is not a bundle: it is not overwritten; choose another --output")
    if target.exists() and os.path.ismount(target):
        raise UserError(f"{target} is a file system of its own, which cannot be replaced: choose a folder in it as --output")


def _find_again(staging: Path, failed: Path) -> None:
    """A bundle that failed holds parts that are whole."""
    if not staging.exists() and (failed / NOTES).is_dir():
        failed.rename(staging)
        (staging / FILE_NAME).unlink(missing_ok=True)


def _keep_parts_alone(staging: Path) -> None:
    """Remove all files but those that parts were noted with."""
    notes = {name: note for name in parts_done(staging) if (note := _read_note(staging / NOTES / f"{name}.json"))}
    if not notes:
        remove(staging)
        return
    for path in list(staging.iterdir()):
        if path.name in notes:
            for file in list(path.iterdir()):
                if file.name not in notes[path.name]["files"]:
                    file.unlink()
        elif path.name != NOTES:
            remove(path) if path.is_dir() else path.unlink()


def _remove_unfinished(staging: Path) -> None:
    """Remove the folders of parts that are not whole: they are begun anew anyway, and a disk may be full."""
    done = parts_done(staging)
    for path in list(staging.iterdir()):
        if path.is_dir() and path.name not in (NOTES, *done):
            remove(path)


def _read_note(path: Path) -> dict | None:
    try:
        note = json.loads(path.read_text())
        return note if {"source", "graphs", "files"} <= note.keys() else None
    except (OSError, ValueError, AttributeError):  # of another version, or cut
        return None


def _with(error: BaseException, kept: str) -> BaseException:
    """The error, which also says what was kept. A fault of the program stays as it is, for its traceback."""
    if isinstance(error, (KeyboardInterrupt, UserError)):
        return type(error)("; ".join([*map(str, error.args), kept]))
    if isinstance(error, MemoryError):
        return UserError(f"not enough memory: give the machine more; {kept}")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return UserError(f"{where}{error.strerror or error}; {kept}")
    return error


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
