"""The frames of a film while it is made: a folder beside it, in which a film that was stopped finds them again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from ..common.errors import UserError
from ..common.locks import locked_folder
from ..common.whole_file import PREFIX, whole_file
from .fetch import shorten
from .saving import save_image

RECIPE = "film.json"


def folder_of(film: Path) -> Path:
    """Where the frames of a film lie until it is whole."""
    return film.with_name(f"{film.name}.frames")


def read_recipe(folder: Path) -> dict[str, Any] | None:
    """How the film in a folder is made; None if there is no film in it."""
    path = folder / RECIPE
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({shorten(str(error))}): remove the folder, or choose another --output") from None
    return found


class Frames:
    """The frames in a folder. size: (height, width) of each, in pixels."""

    def __init__(self, folder: Path, count: int, size: tuple[int, int]):
        self.folder, self._size = folder, size
        self.paths = [folder / f"{number + 1:0{len(str(count))}}.png" for number in range(count)]

    def missing(self) -> list[int]:
        """The numbers, from 0, of the frames that are not there, or not whole."""
        return [number for number, path in enumerate(self.paths) if not self._is_whole(path)]

    def write(self, number: int, image: Image.Image) -> None:
        save_image(image, self.paths[number])

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def any(self) -> bool:
        return any(path.exists() for path in self.paths)

    def _is_whole(self, path: Path) -> bool:
        try:
            with Image.open(path) as image:
                image.verify()  # to the end of the file
            with Image.open(path) as image:
                image.load()
                return (image.height, image.width) == self._size
        except (OSError, ValueError, SyntaxError):  # SyntaxError: Pillow's, for a damaged PNG
            return False


@contextmanager
def open_frames(folder: Path, count: int, size: tuple[int, int], recipe: Mapping[str, Any]) -> Iterator[Frames]:
    """The frames of a film of `count` pictures, for one process at a time. recipe: what decides them, as JSON can hold it.

    The folder is made, or is one with the same recipe. It goes if the block ends without a frame in it. UserError for the
    folder of another film, for one that is no film's, or if another process is at work in it.
    """
    frames = Frames(folder, count, size)
    try:
        folder.mkdir(exist_ok=True)
        with locked_folder(folder, wait=False):
            _take(folder, json.loads(json.dumps(recipe)))
            try:
                yield frames
            finally:
                if folder.is_dir() and not frames.any:
                    frames.remove()
    except BlockingIOError:
        raise UserError(f"another process is making the film in {folder}: wait for it, or choose another --output") from None
    except FileExistsError:
        raise UserError(f"{folder} is in the way of the film's frames: remove it, or choose another --output") from None


def _take(folder: Path, recipe: dict[str, Any]) -> None:
    """Write the recipe into an empty folder; UserError if there is another one, or something else."""
    found = read_recipe(folder)
    if found is None:
        others = [path.name for path in folder.iterdir() if not path.name.startswith(PREFIX)]
        if others:
            raise UserError(f"{folder} holds {shorten(others[0])}, and no {RECIPE}: remove it, or choose another --output")
        with whole_file(folder / RECIPE) as file:
            file.write(json.dumps(recipe, indent=1).encode() + b"\n")
    elif found != recipe:
        differs = ", ".join(_differences(found, recipe)) or "its form"
        raise UserError(f"{folder} holds frames of another film, which differs in {differs}: give the same options to go on "
                        "with it, or remove the folder, or choose another --output")


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """The names of the fields in which two recipes differ, the innermost ones."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return [] if found == wanted else [name]
    keys = sorted(found.keys() | wanted.keys())
    return [field for key in keys for field in _differences(found.get(key), wanted.get(key), key)]
