"""The command film: from keys to a file; a film that was stopped goes on, and gives the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.commands.film import key
from PIL import Image

PROGRAM = [sys.executable, "-m", "kandinsky_mindir.runner.cli"]
SMALL = ["--steps", "3", "--prior-steps", "2", "--size", "16x16", "--quiet"]


def film(bundle, *arguments):
    return ["film", str(bundle), "--key", "a cat", "--key", "a dog", "--loop", *SMALL, *arguments]


@pytest.mark.parametrize("stop", (signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)))
def test_a_film_that_was_stopped_goes_on_with_the_same_bytes(stop, bundles, tmp_path, monkeypatch, capsys):
    """24 frames of two texts, stopped in the middle, with the seed that was drawn for it."""
    monkeypatch.chdir(tmp_path)
    command = film(bundles("narrow"), "--frames", "24", "--scheduler", "ddpm", "--output")
    process = subprocess.Popen([*PROGRAM, *command, "film.mp4"], stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "film.mp4.frames"
    while not (folder / "05.png").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(stop)
    said = process.communicate(timeout=60)[1]
    left = {path.name: path.read_bytes() for path in folder.glob("[0-9]*.png")}
    assert 5 <= len(left) < 24 and not (tmp_path / "film.mp4").exists()
    if stop == signal.SIGTERM:
        assert process.returncode == 143 and "frames are in film.mp4.frames: the same command goes on from there" in said
    seed = json.loads((folder / "film.json").read_text())["film"]["request"]["seed"]
    times = {name: (folder / name).stat().st_mtime_ns for name in left}
    assert cli.main([*command, "film.mp4", "--keep-frames"]) == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in left} == times, "those that were there were not made again"
    assert cli.main([*command, "other.mp4", "--seed", str(seed)]) == 0
    assert (tmp_path / "film.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()
    assert sorted(os.listdir()) == ["film.mp4", "film.mp4.frames", "other.mp4"]
    assert capsys.readouterr().out == "film.mp4\nother.mp4\n"


def test_keys_that_are_pictures(bundles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20), "red").save("red.png")
    Image.new("RGB", (20, 20), "blue").save("blue", "PNG")
    command = ["film", str(bundles("narrow")), "--key", "red.png", "--key", "image:blue", "--key", "text:it ends in .png", *SMALL]
    assert cli.main([*command, "--frames", "5", "--output", "film.webp", "--hold", "0.2"]) == 0
    with Image.open("film.webp") as made:
        assert (made.n_frames, made.size) == (5, (16, 16))
    assert cli.main([*command, "--frames", "5", "--output", "film.webp", "--plan"]) == 0
    assert "unet" in capsys.readouterr().out


def test_kinds_of_keys():
    assert [key(text) for text in ("a cat", "cat.PNG", "https://example.org/a", "text:cat.png", "image:cat", "a: b")] == [
        ("text", "a cat"), ("image", "cat.PNG"), ("image", "https://example.org/a"), ("text", "cat.png"), ("image", "cat"),
        ("text", "a: b"),
    ]  # fmt: skip
