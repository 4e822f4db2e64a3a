"""Film files: the frames that were written come out, at their times, with the story of how they were made."""

import json
import shutil
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.pictures import ffmpeg
from kandinsky_mindir.runner.pictures.animation import DESCRIPTION, KEY, check_film, durations, kind_of, write_film
from kandinsky_mindir.runner.pictures.frames import Frames, open_frames, read_recipe
from PIL import Image, ImageSequence
from psnr import psnr

SIZE, FRAMES = (48, 64), 5  # height, width
STORY = json.dumps({"keys": ["a cat", "кот"]})


@pytest.fixture
def frames(tmp_path):
    """Files of smooth pictures that differ from one to the next."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    made = []
    for number in range(FRAMES):
        pixels = np.stack([4 * columns, 5 * rows, np.full(SIZE, 40 * number)], -1).astype(np.uint8)
        made.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(made[-1])
    return made


@pytest.mark.parametrize("ending, exact", [(".webp", True), (".png", True), (".apng", True), (".gif", False)])
def test_frames_come_out_of_the_file(ending, exact, frames, tmp_path):
    """At 12 a second: 83.3 ms each, 80 or 90 in a GIF, never more than a tick away from their times."""
    path = tmp_path / f"film{ending}"
    write_film(path, frames, 12, STORY)
    first = path.read_bytes()
    write_film(path, frames, 12, STORY)
    assert path.read_bytes() == first
    with Image.open(path) as film:
        found = [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(film)]
        story = {".gif": film.info.get("comment"), ".webp": film.getexif().get(DESCRIPTION)}.get(ending, film.info.get(KEY))
        assert film.info["loop"] == 0
    assert (story.decode() if isinstance(story, bytes) else story) == STORY
    assert len(found) == FRAMES and sum(time for _, time in found) == pytest.approx(1000 * FRAMES / 12, abs=5)
    for (image, _), frame in zip(found, frames):
        pixels, wanted = (np.asarray(each).astype(np.float64) / 255 for each in (image, Image.open(frame)))
        # a GIF has 256 colours, about 6 levels a channel: steps of 1/5, off by a tenth at most, spread by dithering
        assert np.array_equal(pixels, wanted) if exact else psnr(pixels, wanted) > 20


def test_mp4_through_ffmpeg(frames, tmp_path):
    """H.264 at 4:2:0 and this quality is off by two or three of 255 in smooth pictures: about 40 dB."""
    path = tmp_path / "film.mp4"
    write_film(path, frames, 23.976, STORY)
    first = path.read_bytes()
    write_film(path, frames, 23.976, STORY)
    assert path.read_bytes() == first
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    found = np.frombuffer(decoded.stdout, np.uint8).reshape(FRAMES, *SIZE, 3)
    for pixels, frame in zip(found, frames):
        assert psnr(pixels / 255, np.asarray(Image.open(frame)) / 255) > 33
    said = decoded.stderr.decode()
    assert STORY in said and "23.98 fps" in said and "bt709" in said


def test_films_that_cannot_be_written(frames, tmp_path, monkeypatch):
    for name, size, fps, words in (
        ("film.avi", SIZE, 12, "ends in no known film format: use one of .gif"),
        ("film.gif", SIZE, 60, "GIF takes more than 0 and at most 50 frames a second"),
        ("film.webp", SIZE, 0, "fps is 0"),
        ("film.webp", SIZE, float("nan"), "fps is nan"),
        ("film.webp", (16, 16384), 12, "WEBP has at most 16383 pixels on a side"),
        ("film.mp4", (15, 16), 12, "MP4 needs sides of an even number"),
        ("missing/film.webp", SIZE, 12, "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            check_film(tmp_path / name, size, FRAMES, fps)
    with pytest.raises(UserError, match="is read to make the film, and would be overwritten"):
        check_film(frames[0], SIZE, FRAMES, 12, [frames[0]])
    with pytest.raises(UserError, match="take .* of memory as GIF, and .* is left: use .mp4, or fewer frames"):
        check_film(tmp_path / "film.gif", (4096, 4096), 100_000, 12)
    assert not [path for path in tmp_path.iterdir() if path not in frames]


@pytest.mark.parametrize("script, words", [
    (None, "needs the program ffmpeg, which is not there: install it, or run pip install"),
    ("exit 1", "does not run, or has none of the encoders libx264, libopenh264, mpeg4"),
    ("echo ' V..... libvpx  VP8'", "has none of the encoders"),
])
def test_without_an_ffmpeg(script, words, tmp_path, monkeypatch):
    """One line, before any work."""
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", _raise)
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        _program(tmp_path / "ffmpeg", script)
    with pytest.raises(UserError, match=words):
        kind_of(tmp_path / "film.mp4")


def test_an_ffmpeg_that_fails(frames, tmp_path, monkeypatch):
    """Its last words are in the line, and no file is left."""
    _program(tmp_path / "ffmpeg", 'case "$*" in *-encoders*) echo " V..... libx264 H.264";; *) echo "no space" >&2; exit 3;; esac')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ffmpeg ended with status 3: no space"):
        write_film(tmp_path / "film.mp4", frames, 12, STORY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png", "3.png", "4.png", "ffmpeg"]


@pytest.mark.parametrize("fps", (12, 23.976, 50, 0.3))
@pytest.mark.parametrize("tick", (1, 10))
def test_times_do_not_drift(fps, tick):
    times = durations(1000, fps, tick)
    ends = np.cumsum(times)
    assert all(time > 0 and time % tick == 0 for time in times)
    wanted = 1000 * np.arange(1, 1001) / {23.976: 24000 / 1001}.get(fps, fps)
    assert np.abs(ends - wanted).max() <= tick / 2 + 1e-6


def test_frames_are_found_again(tmp_path):
    folder, recipe, image = tmp_path / "film.mp4.frames", {"film": {"seed": 1}}, Image.new("RGB", (16, 16))
    with open_frames(folder, 12, (16, 16), recipe) as frames:
        assert len(frames.missing()) == 12
        frames.write(3, image)
        frames.write(11, image)
        with pytest.raises(UserError, match="another process is making the film"):
            with open_frames(folder, 12, (16, 16), recipe):
                pass
    assert read_recipe(folder) == recipe and frames.paths[11].name == "12.png"
    whole = frames.paths[11].read_bytes()
    frames.paths[11].write_bytes(whole[:-20])
    assert frames.missing() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], "a frame that is cut is made again"
    assert 3 in Frames(folder, 12, (16, 32)).missing(), "so is one of another size"
    with pytest.raises(UserError, match="holds frames of another film, which differs in seed: give the same options"):
        with open_frames(folder, 12, (16, 16), {"film": {"seed": 2}}):
            pass
    (folder / "film.json").write_text("[")
    with pytest.raises(UserError, match=r"film.json cannot be read"):
        read_recipe(folder)
    (folder / "film.json").unlink()
    with pytest.raises(UserError, match=r"holds (04|12).png, and no film.json: remove it"):
        with open_frames(folder, 12, (16, 16), recipe):
            pass
    with open_frames(other := tmp_path / "other.frames", 3, (16, 16), recipe):
        pass
    assert not other.exists(), "a folder without a frame goes"
    other.write_text("")
    with pytest.raises(UserError, match="is in the way of the film's frames"):
        with open_frames(other, 3, (16, 16), recipe):
            pass


def _program(path, script):
    path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    path.chmod(0o755)
    ffmpeg._encoders.cache_clear()


def _raise():
    raise RuntimeError("No ffmpeg exe could be found")
