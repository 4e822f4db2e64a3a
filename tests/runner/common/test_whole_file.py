"""A file appears whole or not at all."""

import os

import pytest
from kandinsky_mindir.runner.common.locks import lock
from kandinsky_mindir.runner.common.whole_file import PREFIX, SUFFIX, whole_file


def write(path, content=b"new"):
    with whole_file(path) as file:
        file.write(content)


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half")
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["cat.png"]
    write(path)
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["cat.png"]


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("c" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".png")
    write(path)
    assert path.read_bytes() == b"new"


def test_through_a_link(tmp_path):
    (tmp_path / "link.png").symlink_to("cat.png")
    write(tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink() and (tmp_path / "cat.png").read_bytes() == b"new"


def test_what_killed_processes_left_goes_and_what_others_write_stays(tmp_path):
    left, held = tmp_path / f"{PREFIX}1{SUFFIX}", tmp_path / f"{PREFIX}2{SUFFIX}"
    left.write_bytes(b"half")
    with open(held, "wb") as running:
        lock(running)
        write(tmp_path / "cat.png")
    assert sorted(os.listdir(tmp_path)) == [held.name, "cat.png"]
