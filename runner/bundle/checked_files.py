"""Files of known size and sha256, which are checked before they are used."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError
from .manifest import FILE_NAME, FileInfo

CHUNK = 1 << 22


class CheckedFiles:
    """The files of a folder, by their names in it.

    path: the folder. files: what each must be. remedy: what errors advise. Raises UserError if one is missing or has
    another size; what is in them is checked when they are asked for.
    """

    def __init__(self, path: Path, files: Mapping[str, FileInfo], remedy: str):
        self.path, self.remedy = path, remedy
        self._files = files
        self._checked: dict[str, tuple] = {}  # the state in which each file was right
        self._locks = {name: threading.Lock() for name in files}
        for name, info in files.items():
            self._check_size(name, info.size)

    def file(self, name: str) -> Path:
        """The path of a file, after its size and sha256 were checked: once, and again if it was changed."""
        if name not in self._files:
            raise UserError(f"{self.path / FILE_NAME} does not list {name}: it is damaged; {self.remedy}")
        path = self.path / name
        with self._locks[name]:
            if name not in self._checked or self._checked[name] != self._state(path):
                self._checked[name] = self._check(name)
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
        """Check every file; UserError names the first that differs."""
        for name in self._files:
            self.file(name)

    def _check_size(self, name: str, size: int) -> None:
        path = self.path / name
        try:
            found = path.stat().st_size
        except OSError:
            raise UserError(f"{path} is missing from the bundle: {self.remedy}") from None
        if found != size:
            raise UserError(f"{path} has {found} bytes, the manifest says {size}: it is cut or damaged; {self.remedy}")

    def _check(self, name: str) -> tuple:
        info = self._files[name]
        self._check_size(name, info.size)
        path = self.path / name
        state = self._state(path)  # before it is read
        try:
            found = sha256_of(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): {self.remedy}") from None
        if found != info.sha256:
            raise UserError(f"{path} does not match its sha256 in the manifest: it is damaged; {self.remedy}")
        return state

    def _state(self, path: Path) -> tuple:
        """What differs after a file was written to, cut or replaced; even where its time of change was set back."""
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): {self.remedy}") from None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_of(path: Path) -> str:
    """The sha256 of a file, hexadecimal; read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
