"""A bundle on disk: its manifest, its constants, its graphs, and files that are checked before they are used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from ..common.errors import UserError
from ..common.memory import as_text
from ..common.scratch import scratch_folder
from . import mindir_archive, packed
from .checked_files import CheckedFiles, read_text
from .manifest import FILE_NAME, GraphInfo, Manifest
from .ms_layout import WEIGHTS, ModelSource
from .npz import read_arrays
from .packed import Packed
from .stored.wide_file import WideWeights, files_behind, open_weights, wide_index
from .tensor_index import NAME, STORED, StoredTensor, index_of, is_stored, read_index

CONSTANTS = ("clip_mean", "clip_std", "empty_text_embeds", "empty_text_hidden_states", "empty_text_mask",
             "zero_image_embeds")


class Bundle(CheckedFiles):
    """An exported bundle, opened for reading.

    path: the folder that ``kandinsky-mindir export`` wrote. use_packed: whether models are loaded from what
    ``kandinsky-mindir pack`` made of it, if that is there. check: when its files are hashed (see CheckedFiles). Raises
    UserError if it is not a whole bundle.
    """

    threads: int | None = None  # of the engine that loads its models; None: one for each CPU
    precision = "float32"  # of that engine
    kernels: str | None = None  # of that engine; None: any
    use_packed = True
    target = "cpu"  # what its graphs were compiled for

    def __init__(self, path: str | Path, use_packed: bool = True, check: str = "once"):
        if not isinstance(path, (str, os.PathLike)):
            raise UserError(f"a bundle must be the path of a folder, not {path!r}")
        folder = Path(path)
        manifest = folder / FILE_NAME
        try:
            text = read_text(manifest)  # every byte: the seal is on them
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{folder} is not a bundle (no {FILE_NAME}): make one with kandinsky-mindir export") from None
        self.manifest = Manifest.parse(text, str(manifest))
        self.identity = str(folder.resolve()), hashlib.sha256(text.encode()).hexdigest()
        super().__init__(folder, self.manifest.files, "export the bundle again", check)
        self.use_packed = use_packed

    def for_engine(self, threads: int | None, precision: str = "float32", kernels: str | None = None) -> Bundle:
        """The same, for an engine with so many threads, that precision and kernels: what is packed suits one of each."""
        if (threads, precision, kernels) == (self.threads, self.precision, self.kernels):
            return self
        return self._copy(threads=threads, precision=precision, kernels=kernels)

    def as_exported(self) -> Bundle:
        """The same without what is packed, which not every engine can use."""
        return self._copy(use_packed=False) if self.use_packed else self

    def for_target(self, name: str) -> Bundle:
        """The same with the graphs that were compiled for a target, where it has any."""
        return self._copy(manifest=self.manifest.for_target(name), target=name) if name in self.manifest.targets else self

    def _copy(self, **changes) -> Bundle:
        other = copy(self)
        vars(other).update(changes)
        vars(other).pop("packed", None)
        return other

    def mindir(self, name: str) -> bytes:
        """A MindIR file of a graph (its `mindir` or its `lite`), out of its part's archive."""
        return mindir_archive.read(self.file(mindir_archive.archive_of(name)), name)

    @contextmanager
    def unpacked(self, graph: GraphInfo, name: str) -> Iterator[Path]:
        """A MindIR file of `graph` as a file beside its weights, in a folder that is gone after the block; beside one for another
        target lies what its compiler is to be told, under the same name with the ending .cfg."""
        files = [self.file(name).absolute() for name in self.weights_of(graph.part)]
        with scratch_folder() as folder:
            for file in files:
                if file.name != NAME and not is_stored(file.name):
                    (folder / file.name).symlink_to(file)
            weights = open_weights(self.path / graph.part / WEIGHTS)
            if isinstance(weights, WideWeights):
                _write(weights, folder)
            path = folder / Path(name).name
            path.write_bytes(self.mindir(name))
            if self.target != "cpu" and name == graph.mindir:
                config = str(PurePosixPath(name).with_suffix(".cfg"))
                path.with_suffix(".cfg").write_bytes(self.mindir(config))
            yield path

    def tensors(self, part: str) -> dict[str, StoredTensor]:
        """How each weight of a part is stored, by name. The files are beside the index, in the part's folder."""
        return read_index(self.file(index_of(part)))

    def places(self, part: str) -> dict[str, StoredTensor]:
        """Where graphs find each weight of a part, as float32: in weights.bin, or as `wide_index` says."""
        return wide_index(self.tensors(part))

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """What does not depend on prompt or seed: ``clip_mean``, ``clip_std``, ``zero_image_embeds`` and the
        unconditional text (``empty_text_embeds``, ``empty_text_hidden_states``, ``empty_text_mask``)."""
        return read_arrays(self.file("constants.npz"), CONSTANTS)

    def verify_files(self) -> None:
        super().verify_files()
        if self.packed:
            self.packed.verify_files()

    @cached_property
    def packed(self) -> Packed | None:
        """What ``kandinsky-mindir pack`` made of the weights; None if it is not there, or for another machine, number of
        threads or precision."""
        if not (self.use_packed and (self.path / packed.FOLDER).is_dir()):
            return None
        return packed.read(self.path, packed.here(self.path, self.threads, self.precision, self.kernels), self.check)

    @property
    def packed_for_others(self) -> str:
        """Why what ``kandinsky-mindir pack`` made is of no use here, and what to do; "" if it is used, or is not there."""
        return "" if not self.use_packed or self.packed else packed.why_not(self.path, self.threads, self.precision, self.kernels)

    def model(self, path: str) -> ModelSource:
        """Where the `.ms` model of the layout `path` comes from."""
        found = self.packed and self.packed.graphs.get(path)
        return found or ModelSource(self, path)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as graphs take them, float32."""
        return sum(open_weights((self.path / name).with_name(WEIGHTS)).size if name.endswith(f"/{STORED}") else info.size
                   for name, info in self.manifest.files.items() if name.endswith("weights.bin")
                   and (name.endswith(f"/{STORED}") or not is_stored(PurePosixPath(name).name)))

    def weight_bytes_of(self, part: str) -> int:
        """Bytes of the files that graphs of a part find its weights in, float32."""
        return sum(open_weights(self.path / part / name).size for name in {place.file for place in self.places(part).values()})

    def weights_of(self, part: str) -> list[str]:
        """The files that hold a part's weights, and the index if the weights follow from both."""
        return files_behind(self.path, sorted({f"{part}/{place.file}" for place in self.places(part).values()}))


def _write(weights: WideWeights, folder: Path) -> None:
    """Write weights.bin; UserError if there is no room for it."""
    try:
        with open(folder / WEIGHTS, "wb") as file:
            weights.write(file)
    except OSError as error:
        raise UserError(f"{weights.folder / WEIGHTS} takes {as_text(weights.size)} as float32, which {folder.parent} cannot hold "
                        f"({error}): free disk space there, or set TMPDIR to a folder with more") from None
