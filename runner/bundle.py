"""A bundle on disk: its manifest, its constants, and files that are checked before they are used."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import mindir_archive
from .errors import UserError
from .manifest import FILE_NAME, GraphInfo, Manifest
from .scratch import scratch_folder

if TYPE_CHECKING:
    from .tokens import Tokenizer

CHUNK = 1 << 22


class Bundle:
    """An exported bundle, opened for reading.

    path: the folder that ``kandinsky-mindir export`` wrote. Raises UserError if it is not a whole bundle.
    """

    def __init__(self, path: str | Path):
        if not isinstance(path, (str, os.PathLike)):
            raise UserError(f"a bundle must be the path of a folder, not {path!r}")
        self.path = Path(path)
        manifest = self.path / FILE_NAME
        try:
            text = manifest.read_bytes().decode()  # every byte: the seal is on them
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.path} is not a bundle (no {FILE_NAME}): make one with kandinsky-mindir export") from None
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path
            raise UserError(f"{manifest} cannot be read ({error}): export the bundle again") from None
        self.manifest = Manifest.parse(text, str(manifest))
        self._checked: dict[str, tuple] = {}  # the state in which each file was right
        self._lock = threading.Lock()
        for name, info in self.manifest.files.items():
            self._check_size(name, info.size)

    def file(self, name: str) -> Path:
        """The path of a file of the bundle, after its size and sha256 were checked: once, and again if it was changed."""
        path = self.path / name
        with self._lock:
            if name not in self._checked or self._checked[name] != _state(path):
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

    def mindir(self, name: str) -> bytes:
        """A MindIR file of a graph (its `mindir` or its `lite`), out of its part's archive."""
        return mindir_archive.read(self.file(mindir_archive.archive_of(name)), name)

    @contextmanager
    def unpacked(self, graph: GraphInfo, name: str) -> Iterator[Path]:
        """A MindIR file of `graph` as a file beside its weights, in a folder that is gone after the block."""
        weights = self.file(self.weights_of(graph.part)).absolute()
        with scratch_folder() as folder:
            (folder / weights.name).symlink_to(weights)
            path = folder / Path(name).name
            path.write_bytes(self.mindir(name))
            yield path

    def verify_files(self) -> None:
        """Check every file against the manifest; UserError names the first that differs."""
        for name in self.manifest.files:
            self.file(name)

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """What does not depend on prompt or seed: ``clip_mean``, ``clip_std``, ``zero_image_embeds`` and the
        unconditional text (``empty_text_embeds``, ``empty_text_hidden_states``, ``empty_text_mask``)."""
        with np.load(self.file("constants.npz"), allow_pickle=False) as data:
            return {name: data[name] for name in data.files}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from .tokens import Tokenizer  # its library takes a while to import

        options = {name: self.manifest.tokenizer[name] for name in ("max_length", "pad_token_id", "eos_token_id")}
        return Tokenizer(self.file("tokenizer.json"), **options)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, as stored."""
        return sum(info.size for name, info in self.manifest.files.items() if name.endswith("weights.bin"))

    def weights_of(self, part: str) -> str:
        return f"{part}/weights.bin"

    def _check_size(self, name: str, size: int) -> None:
        path = self.path / name
        try:
            found = path.stat().st_size
        except OSError:
            raise UserError(f"{path} is missing from the bundle: export the bundle again") from None
        if found != size:
            raise UserError(f"{path} has {found} bytes, the manifest says {size}: it is cut or damaged; export again")

    def _check(self, name: str) -> tuple:
        info = self.manifest.files.get(name)
        if info is None:
            raise UserError(f"{self.path / FILE_NAME} does not list {name}: it is damaged; export the bundle again")
        self._check_size(name, info.size)
        path = self.path / name
        state = _state(path)  # before it is read
        if sha256_of(path) != info.sha256:
            raise UserError(f"{path} does not match its sha256 in the manifest: it is damaged; export again")
        return state


def _state(path: Path) -> tuple:
    """What differs after a file was written to, cut or replaced; even where its time of change was set back."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): export the bundle again") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_of(path: Path) -> str:
    """The sha256 of a file, hexadecimal; read in chunks."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): export the bundle again") from None
    return digest.hexdigest()
