"""Film files: which there are, what can be said of them before the work, and how frames become one."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, PngImagePlugin

from ..common.errors import UserError
from ..common.memory import as_text, available
from ..common.whole_file import whole_file
from . import ffmpeg
from .saving import PNG, WEBP, check_folder, check_place

KEY = "kandinsky-mindir-film"  # of the text that says how a film was made
DESCRIPTION = 0x010E  # ImageDescription, EXIF 2.3, 4.6.4
FASTEST = 1000  # frames a second: what a millisecond tells apart
BYTES_PER_PIXEL = 8  # of each frame while Pillow writes them all: four itself, four of what is left of it to encode


class Kind(NamedTuple):
    """A kind of film file. longest_side: pixels. fastest: frames a second. tick: milliseconds that times are multiples of.

    streams: whether frames are written one after another; else Pillow holds all of them.
    """

    name: str
    longest_side: int
    fastest: float = FASTEST
    tick: int = 1
    streams: bool = False
    options: Callable[[str], Mapping[str, Any]] = lambda story: {}


def _png_text(story: str) -> Mapping[str, Any]:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, story)
    return {"pnginfo": info}


def _description(story: str) -> Mapping[str, Any]:
    exif = Image.Exif()
    exif[DESCRIPTION] = story
    return {"exif": exif, "lossless": True}


# GIF: a side has 16 bits; viewers take times below 20 ms for 100 ms. MP4: what H.264 has at most (level 6.2).
GIF = Kind("GIF", 65535, 50, 10, options=lambda story: {"comment": story.encode()})
KINDS = {
    ".gif": GIF,
    ".webp": Kind("WEBP", WEBP.longest_side, options=_description),
    ".png": (APNG := Kind("PNG", PNG.longest_side, options=_png_text)),
    ".apng": APNG,
    ".mp4": Kind("MP4", 16384, streams=True),
}


def kind_of(path: Path) -> Kind:
    """The kind that the ending of `path` names; UserError for an unknown one, or where it takes a program that is not there."""
    if path.suffix.lower() not in KINDS:
        raise UserError(f"{path} ends in no known film format: use one of {', '.join(KINDS)}")
    kind = KINDS[path.suffix.lower()]
    if kind.streams:
        ffmpeg.find(path)
    return kind


def check_film(path: Path, size: tuple[int, int], frames: int, fps: float, inputs: Iterable[Path] = ()) -> None:
    """UserError if a film of `frames` pictures of `size` (height, width) could not be written to `path`.

    inputs: pictures that are read, and are not to be overwritten.
    """
    kind = kind_of(path)
    if not 0 < fps <= kind.fastest:
        raise UserError(f"fps is {fps:g}: {kind.name} takes more than 0 and at most {kind.fastest:g} frames a second")
    if max(size) > kind.longest_side:
        raise UserError(f"{path}: {kind.name} has at most {kind.longest_side} pixels on a side, not {size[0]}x{size[1]}: "
                        "choose another format or size")
    if kind.streams and any(side % 2 for side in size):
        raise UserError(f"{path}: MP4 needs sides of an even number of pixels, not {size[0]}x{size[1]}: "
                        "use .webp, .gif or .png")
    check_folder(path.parent)
    check_place(path)
    for source in inputs:
        if os.path.realpath(source) == os.path.realpath(path) and os.path.exists(source):
            raise UserError(f"{source} is read to make the film, and would be overwritten: choose another --output")
    pixels = frames * size[0] * size[1]
    if not kind.streams and (need := BYTES_PER_PIXEL * pixels) > (left := available()):
        raise UserError(f"{frames} frames of {size[0]}x{size[1]} take {as_text(need)} of memory as {kind.name}, and "
                        f"{as_text(left)} is left: use .mp4, or fewer frames")
    if (disk := PNG.least_bytes_per_pixel * pixels) > (free := shutil.disk_usage(path.parent).free):
        raise UserError(f"the frames take {disk / 1e6:,.1f} MB or more, and {path.parent} has {free / 1e6:,.1f} MB left: "
                        "make room, or choose another --output")


def write_film(path: Path, frames: Sequence[Path], fps: float, story: str) -> None:
    """Write the pictures in the files `frames` as one film, whole or not at all. story: JSON, kept in the file's metadata.

    The same frames give the same bytes. All kinds but MP4 repeat without end. UserError if it cannot be written.
    """
    kind = kind_of(path)
    try:
        with whole_file(path) as file:
            if kind.streams:
                ffmpeg.write(file, frames, Fraction(fps).limit_denominator(1001), f"{KEY}: {story}")
            else:
                _write_with_pillow(file, kind, frames, fps, story)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def durations(frames: int, fps: float, tick: int) -> list[int]:
    """Milliseconds that each frame stands, multiples of `tick`: the end of each is as near to its time as they allow."""
    ends = [round(Fraction(1000 * (number + 1), tick) / Fraction(fps).limit_denominator(1001)) * tick for number in range(frames)]
    return [end - start for start, end in zip([0, *ends], ends)]


def _write_with_pillow(file: BinaryIO, kind: Kind, frames: Sequence[Path], fps: float, story: str) -> None:
    first, *rest = (Image.open(io.BytesIO(frame.read_bytes())) for frame in frames)
    times = durations(len(frames), fps, kind.tick)
    first.save(file, kind.name, save_all=True, append_images=rest, duration=times, loop=0, **kind.options(story))
