"""--like asks before it opens what a stranger's recipe names, and without a terminal it refuses."""

import os
import pty
import subprocess
import sys

import pytest
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.pictures.provenance import Provenance
from kandinsky_mindir.runner.pictures.saving import save_image
from kandinsky_mindir.runner.request import Item, Request
from PIL import Image

ADDRESS = "http://127.0.0.1:9/cat.png"  # where nobody answers


@pytest.fixture
def like(bundles, tmp_path):
    """The command that makes a picture of a stranger again, who mixed one from the net."""
    request = Request(task="interpolate", items=(Item(weight=1, image=ADDRESS, sha256="0" * 64),))
    provenance = Provenance(request=request, bundle="nowhere", bundle_sha256="0" * 64)
    save_image(Image.new("RGB", (2, 2)), tmp_path / "like.png", text=provenance.text())
    return ["interpolate", str(bundles("narrow")), "--like", str(tmp_path / "like.png"), "--output", str(tmp_path / "again.png")]


def test_without_a_terminal_it_is_refused(like, capsys):
    assert cli.main(like) == 2
    error = capsys.readouterr().err
    assert f"names what should not be opened unseen: the picture {ADDRESS} lies on another machine" in error
    assert "give others in their place, or --trust-recipe if you trust who made it" in error and error.count("\n") == 1


def test_with_the_option_it_is_opened(like, capsys):
    assert cli.main([*like, "--trust-recipe"]) == 2
    assert f"{ADDRESS} cannot be fetched" in capsys.readouterr().err


def test_what_the_user_gives_in_its_place_is_opened_instead(like, tmp_path, capsys):
    save_image(Image.new("RGB", (8, 8)), tmp_path / "mine.png")
    assert cli.main([*like, "--image", str(tmp_path / "mine.png"), "1", "--plan"]) == 0


@pytest.mark.parametrize("answer, words", [("y", "cannot be fetched"), ("n", "its recipe is not trusted"), ("", "not trusted")])
def test_on_a_terminal_it_asks(like, answer, words):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "kandinsky_mindir.runner.cli", *like], stdin=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(ours, 4096)
    os.write(ours, answer.encode() + b"\n")
    assert process.wait(60) == 2
    while words.encode() not in said:
        said += os.read(ours, 4096)
    os.close(ours)
