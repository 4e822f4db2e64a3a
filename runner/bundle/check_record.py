"""What is known of files that were hashed before: a record in the user's cache, so that an unchanged file is hashed once.

The record says in which state a file was when its sha256 was right. It is a convenience: where it cannot be read or written,
files are hashed again. Whoever can write it can have damage go unseen, so it is the user's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..common.errors import UserError
from ..common.scratch import cache_folder

FOLDER = "checked"
SETTLED = 2_000_000_000  # ns: clocks of file systems are as coarse as two seconds, and a later change within one tick is unseen


class State(NamedTuple):
    """What differs after a file was written to, cut or replaced; even where its time of change was set back."""

    device: int
    inode: int
    size: int
    changed: int  # contents, ns
    altered: int  # contents or anything else of it, ns: nobody can set it

    @classmethod
    def of(cls, path: Path) -> State:
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def settled(self, now: int) -> bool:
        """Whether a change after `now` (ns) would show."""
        return max(self.changed, self.altered) <= now - SETTLED


class CheckRecord:
    """The record of the files in a folder. Any thread may use it, and several processes at once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[str, list] | None = None  # by name: the state, then the sha256
        self.unlock()

    def unlock(self) -> None:
        """In a forked process: a thread that is not here may hold the lock."""
        self._lock = threading.Lock()

    def knows(self, name: str, state: State, sha256: str) -> bool:
        """Whether the file had that sha256 when it was in that state."""
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known.get(name) == [*state, sha256]

    def add(self, name: str, state: State, sha256: str, now: int | None = None) -> None:
        """Remember that the file, in the state that it had at `now` (ns), has that sha256."""
        if not state.settled(time.time_ns() if now is None else now):
            return
        with self._lock, suppress(OSError, UserError, RuntimeError):
            self._known = {**self._read(), name: [*state, sha256]}
            self._write(self._known)

    @property
    def _path(self) -> Path:
        place = os.fsencode(os.path.realpath(self._folder))
        return cache_folder() / FOLDER / f"{hashlib.sha256(place).hexdigest()[:32]}.json"

    def _read(self) -> dict[str, list]:
        try:
            files = json.loads(self._path.read_bytes())["files"]
            return files if isinstance(files, dict) else {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError, UserError, RuntimeError):
            return {}

    def _write(self, files: dict[str, list]) -> None:
        path = self._path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _forget_gone(path.parent)
        descriptor, new = tempfile.mkstemp(dir=path.parent, prefix="new-")
        try:
            with open(descriptor, "w") as file:
                json.dump({"folder": os.path.realpath(self._folder), "files": files}, file)
            os.replace(new, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise


def _forget_gone(records: Path) -> None:
    """Remove the records of folders that are not there any more."""
    for path in records.glob("*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            if not os.path.isdir(json.loads(path.read_bytes())["folder"]):
                path.unlink()
