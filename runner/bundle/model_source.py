"""Where a `.ms` model comes from: a layout, the files it takes from, and what of its weights is packed already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

from .checked_files import CheckedFiles
from .ms_file import ModelFile
from .ms_layout import Layout, Stretch


class ModelSource(NamedTuple):
    """The `.ms` model of a graph or of a stretch of one.

    layout: the name of its layout in `files`, with its sources beside it. packed: weights as Lite packs them; the
    position of each is its tensor's.
    """

    files: CheckedFiles
    layout: str
    packed: Sequence[Stretch] = ()

    def read(self) -> Layout:
        return Layout.read(self.files.file(self.layout))

    @contextmanager
    def assembled(self) -> Iterator[ModelFile]:
        """The file, to load within the block; UserError if one of its files is damaged."""
        layout = self.read()
        names = dict.fromkeys([*layout.sources, *(stretch.source for stretch in self.packed)])
        sources = [str(PurePosixPath(self.layout).with_name(name)) for name in names]
        with self.files.reading(self.layout, *sources), layout.assemble(self.files.path / self.layout, self.packed) as file:
            yield file
