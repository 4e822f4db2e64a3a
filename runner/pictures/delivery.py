"""Finished pictures become files, one by one as they are made, or one grid of all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..common.errors import UserError
from ..common.memory import as_text, available
from .saving import PNG, check_outputs, format_of, numbered, save_image

BYTES_PER_PIXEL = 2 * 3  # of a grid in memory: itself, and a file of it that hardly compresses


@dataclass(frozen=True)
class Delivery:
    """Where the `count` pictures of a request go.

    output: the file of one picture or of a grid; several pictures are numbered. grid: put all into one file.
    size: (height, width) of each picture in pixels.
    """

    output: Path
    count: int
    grid: bool
    size: tuple[int, int]

    @property
    def paths(self) -> list[Path]:
        return [self.output] if self.grid else numbered(self.output, self.count)

    def check(self, inputs: Iterable[Path] = ()) -> None:
        """UserError if the pictures could not be written; `inputs` are files that must not be overwritten."""
        format_of(self.output)
        rows, columns = self._shape
        size = (rows * self.size[0], columns * self.size[1])
        need = BYTES_PER_PIXEL * size[0] * size[1]
        if self.grid and need > (left := available()):
            raise UserError(f"a grid of {rows}x{columns} pictures has {size[0]}x{size[1]} pixels and takes {as_text(need)} of "
                            f"memory, {as_text(left)} are left: leave out --grid, or ask for fewer pictures")
        check_outputs(self.paths, size, inputs)

    def write(self, pictures: Iterable[Image.Image], text: Callable[[int | None], Mapping[str, str]]) -> Iterator[Path]:
        """Write each picture when `pictures` yields it, and yield the file's path.

        text: from the number of a picture (from 0; None for all in one grid) to the text chunks of its PNG.
        A fault leaves the files that are written. An unfinished grid goes into a file whose name says so.
        """
        def save(picture: Image.Image, path: Path, row: int | None) -> Path:
            save_image(picture, path, text=text(row) if format_of(path) is PNG else None)
            return path

        if self.grid and self.count > 1:
            yield save(self._grid_of(pictures), self.output, None)
            return
        for row, (picture, path) in enumerate(zip(pictures, self.paths)):
            yield save(picture, path, row)

    @property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the grid, as square as they come out even."""
        if not self.grid:
            return 1, 1
        rows = max(n for n in range(1, math.isqrt(self.count) + 1) if self.count % n == 0)
        return rows, self.count // rows

    def _grid_of(self, pictures: Iterable[Image.Image]) -> Image.Image:
        """The grid, which alone is kept in memory; each picture is copied into it when it is made."""
        (rows, columns), (height, width) = self._shape, self.size
        grid = Image.new("RGB", (columns * width, rows * height))
        made = 0
        try:
            for picture in pictures:
                grid.paste(picture, (made % columns * width, made // columns * height))
                made += 1
        except BaseException:
            if made:
                self._keep_unfinished(grid, made)
            raise
        return grid

    def _keep_unfinished(self, grid: Image.Image, made: int) -> None:
        path = self.output.with_stem(f"{self.output.stem}-unfinished")
        with suppress(UserError):
            save_image(grid, path)
            warnings.warn(f"{made} of {self.count} pictures were made: they are in {path}", stacklevel=2)
