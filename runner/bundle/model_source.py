"""Where a `.ms` model comes from: a recipe, the files it takes from, and what of its weights is packed already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

from .checked_files import CheckedFiles
from .ms_file import ModelFile, Piece, Recipe


class ModelSource(NamedTuple):
    """The `.ms` model of a graph or of a piece of one.

    recipe: the name of its recipe in `files`, with its sources beside it. packed: weights as Lite packs them; the
    position of each is its tensor's.
    """

    files: CheckedFiles
    recipe: str
    packed: Sequence[Piece] = ()

    def read(self) -> Recipe:
        return Recipe.read(self.files.file(self.recipe))

    @contextmanager
    def assembled(self) -> Iterator[ModelFile]:
        """The file, to load within the block; UserError if one of its files is damaged."""
        recipe = self.read()
        names = dict.fromkeys([*recipe.sources, *(piece.source for piece in self.packed)])
        sources = [str(PurePosixPath(self.recipe).with_name(name)) for name in names]
        with self.files.reading(self.recipe, *sources), recipe.assemble(self.files.path / self.recipe, self.packed) as file:
            yield file
