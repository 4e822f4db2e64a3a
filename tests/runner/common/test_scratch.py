"""Temporary folders go away with their block, and with the next one where the block was killed."""

import subprocess
import sys
import tempfile

import pytest
from kandinsky_mindir.runner.common.scratch import PREFIX, scratch_folder

KILLED = """
import os, signal
from kandinsky_mindir.runner.common.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_in_its_block_alone(home):
    with scratch_folder() as folder:
        (folder / "file").write_text("x")
        assert list(home.iterdir()) == [folder] and folder.name.startswith(PREFIX)
    assert list(home.iterdir()) == []


def test_an_error_goes_through_and_leaves_nothing(home):
    with pytest.raises(FileNotFoundError, match="mine"), scratch_folder():
        raise FileNotFoundError("mine")
    assert list(home.iterdir()) == []


def test_the_next_folder_removes_what_a_killed_process_left(home):
    clone = home / "kandinsky-mindir-main"
    clone.mkdir()
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = home.glob(f"{PREFIX}*")
    assert (left / "file").exists()
    with scratch_folder() as folder:
        assert sorted(home.iterdir()) == sorted([clone, folder])


def test_folders_in_use_stay(home):
    with scratch_folder() as one, scratch_folder() as other:
        assert one != other and one.exists() and other.exists()
