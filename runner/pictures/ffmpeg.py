"""MP4 files, through the program ffmpeg: one on PATH, or the one that the package imageio-ffmpeg brings."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ..common.errors import UserError, one_line

# Encoders, the best first, with options for a picture that looks like its frames. H.264 is what every player knows.
ENCODERS = {
    "libx264": ("-crf", "16", "-preset", "medium"),
    "libopenh264": ("-b:v", "20M"),
    "mpeg4": ("-q:v", "2"),
}
SAID = 200  # letters of the program's own words
# Colours as players take them to be: those of ITU-R BT.709, in its narrow range.
COLOURS = ("-vf", "scale=out_color_matrix=bt709:out_range=limited,format=yuv420p", "-colorspace", "bt709",
           "-color_primaries", "bt709", "-color_trc", "bt709")  # fmt: skip


def find(path: Path) -> tuple[str, str]:
    """The program, and the encoder that it is to use; UserError, which names the film `path`, if there is none."""
    program = _program()
    if program is None:
        raise UserError(f"{path} needs the program ffmpeg, which is not there: install it, or run pip install "
                        "'kandinsky-mindir[film]', or give the film a name that ends in .webp, .gif or .png")
    known = _encoders(program)
    for encoder in ENCODERS:
        if encoder in known:
            return program, encoder
    raise UserError(f"{program} does not run, or has none of the encoders {', '.join(ENCODERS)}: install another ffmpeg, or "
                    f"give the film {path.name} a name that ends in .webp, .gif or .png")


def write(file: BinaryIO, frames: Sequence[Path], fps: Fraction, comment: str) -> None:
    """Write the pictures in the files `frames`, all of one size, to the open `file`. UserError with ffmpeg's last words."""
    program, encoder = find(Path(file.name))
    with Image.open(frames[0]) as first:
        width, height = first.size
    command = [
        program, "-nostdin", "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0",
        "-c:v", encoder, *ENCODERS[encoder], *COLOURS,
        "-fflags", "+bitexact", "-flags:v", "+bitexact",  # no time of day
        "-metadata", f"comment={comment}", "-movflags", "+faststart", "-f", "mp4", file.name,
    ]  # fmt: skip
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words)
        try:
            _feed(process, frames)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        words.seek(0)
        said = one_line(words.read().decode(errors="replace"))
    if status != 0:
        raise UserError(f"ffmpeg ended with status {status}: {said[-SAID:] or 'it says nothing'}; the frames are kept: "
                        "a name that ends in .webp, .gif or .png needs no ffmpeg")


def _feed(process: subprocess.Popen, frames: Sequence[Path]) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            for frame in frames:
                with Image.open(frame) as image:
                    pipe.write(image.convert("RGB").tobytes())
    except BrokenPipeError:  # its status says more
        pass


def _program() -> str | None:
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg  # type: ignore[import-not-found, import-untyped, unused-ignore]

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: it brings none for this machine
        return None


@cache
def _encoders(program: str) -> frozenset[str]:
    """The names of the encoders of an ffmpeg; none if it does not run."""
    try:
        listed = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                errors="replace", timeout=60)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(words[1] for line in listed.stdout.splitlines() if len(words := line.split()) > 1)
