"""Files of known size and sha256, which are checked before they are used."""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError
from ..common.locks import in_forked_child
from .check_record import CheckRecord, State
from .manifest import FILE_NAME, REMEDY, FileInfo

CHUNK = 1 << 22
CHECKS = ("once", "always", "never")
LARGEST_MANIFEST = 2**26  # bytes: that of nine graphs takes 15 kB


class CheckedFiles:
    """The files of a folder, by their names in it.

    path: the folder. files: what each must be. remedy: what errors advise. check: when to hash what is in them: "once",
    unless a file is known to be unchanged since; "always", in every process; "never": whoever says so trusts them. Raises
    UserError if one is missing or has another size; what is in them is checked when they are asked for.
    """

    check = "once"

    def __init__(self, path: Path, files: Mapping[str, FileInfo], remedy: str, check: str = "once"):
        if check not in CHECKS:
            raise UserError(f"check is {check!r}: it must be once, always or never")
        self.path, self.remedy, self.check = path, remedy, check
        self._files = files
        self._hashed: dict[str, State] = {}  # the state in which each file was right, in this process
        self._record = CheckRecord(path)
        self._forget_locks()
        for name, info in files.items():
            self._check_size(name, info.size)
        _all.add(self)

    def file(self, name: str) -> Path:
        """The path of a file, after its size and sha256 were checked as `check` says: again if it was changed."""
        path, info = self._known(name)
        if self.check != "never":
            with self._locks[name]:
                state = self._state(path)
                if self._hashed.get(name) != state and not (
                    self.check == "once" and self._record.knows(name, state, info.sha256)
                ):
                    self._hash(name)
        return path

    @contextmanager
    def reading(self, *names: str) -> Iterator[None]:
        """For a block that reads these files, and whose outcome must not be used before it has ended well.

        Hashing takes nearly as long as loading, so they are checked beside the block, and again after it if they were
        changed meanwhile. What is wrong with them comes before what the block makes of it.
        """
        with ThreadPoolExecutor(1) as pool:
            checks = pool.map(self.file, names)
            try:
                yield
            finally:
                list(checks)
        for name in names:
            self.file(name)

    def verify_files(self) -> None:
        """Hash every file that this process has not hashed yet; UserError names the first that differs."""
        for name in self._files:
            path, _ = self._known(name)
            with self._locks[name]:
                if self._hashed.get(name) != self._state(path):
                    self._hash(name)

    def _known(self, name: str) -> tuple[Path, FileInfo]:
        if name not in self._files:
            raise UserError(f"{self.path / FILE_NAME} does not list {name}: it is damaged; {self.remedy}")
        return self.path / name, self._files[name]

    def _check_size(self, name: str, size: int) -> None:
        path = self.path / name
        try:
            found = path.stat().st_size
        except OSError:
            raise UserError(f"{path} is missing from the bundle: {self.remedy}") from None
        if found != size:
            raise UserError(f"{path} has {found} bytes, the manifest says {size}: it is cut or damaged; {self.remedy}")

    def _hash(self, name: str) -> None:
        path, info = self._known(name)
        self._check_size(name, info.size)
        now, state = time.time_ns(), self._state(path)  # before it is read
        try:
            found = sha256_of(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): {self.remedy}") from None
        if found != info.sha256:
            raise UserError(f"{path} does not match its sha256 in the manifest: it is damaged; {self.remedy}")
        self._hashed[name] = state
        if self.check == "once":
            self._record.add(name, state, found, now)

    def _state(self, path: Path) -> State:
        try:
            return State.of(path)
        except FileNotFoundError:
            raise UserError(f"{path} is missing from the bundle: {self.remedy}") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): {self.remedy}") from None

    def _forget_locks(self) -> None:
        self._locks = {name: threading.Lock() for name in self._files}
        self._record.unlock()


def sha256_of(path: Path) -> str:
    """The sha256 of a file, hexadecimal; read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _forget_parent() -> None:
    """In a forked process: a thread that is not here may hold a lock."""
    for files in list(_all):
        files._forget_locks()


_all: weakref.WeakSet[CheckedFiles] = weakref.WeakSet()
in_forked_child(_forget_parent)


def read_text(path: Path, remedy: str = REMEDY) -> str:
    """The text of a manifest; UserError if it cannot be read. A missing one is the caller's: FileNotFoundError."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_MANIFEST + 1)
        if len(content) > LARGEST_MANIFEST:
            raise ValueError(f"it has more than {LARGEST_MANIFEST} bytes")
        return content.decode()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path
        raise UserError(f"{path} cannot be read ({error}): {remedy}") from None
