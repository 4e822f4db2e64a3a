"""What cannot be written is refused before the work."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.pictures.saving import check_outputs, numbered, save_image
from PIL import Image

SMALL = (64, 48)
DISK = namedtuple("DISK", "total used free")


@pytest.mark.parametrize("count, names", [
    (1, ["a.b.png"]), (2, ["a.b-1.png", "a.b-2.png"]), (10, [f"a.b-{n:02}.png" for n in range(1, 11)]),
])
def test_several_pictures_are_numbered(count, names):
    assert numbered(Path("folder/a.b.png"), count) == [Path("folder", name) for name in names]


@pytest.mark.parametrize("ending, size, words", [
    ("jpg", (1, 65500), None), ("jpg", (65501, 1), "too large for JPEG, which has at most 65500 on a side"),
    ("webp", (16383, 1), None), ("webp", (1, 16384), "too large for WEBP, which has at most 16383 on a side"),
    ("png", (65501, 1), None), ("png", (1, 2**31), "too large for PNG"),
    ("bmp", (40_000, 40_000), "too large for BMP, which has at most 4294967295 bytes"),
    ("tiff", (40_000, 40_000), "too large for TIFF"),
])
def test_sizes_that_a_format_has(tmp_path, monkeypatch, ending, size, words):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(2**60, 0, 2**60))
    if words is None:
        check_outputs([tmp_path / f"cat.{ending}"], size)
        save_image(Image.new("RGB", size[::-1]), tmp_path / f"cat.{ending}")  # the format's writer agrees
        return
    with pytest.raises(UserError, match=words):
        check_outputs([tmp_path / f"cat.{ending}"], size)
    if max(size) < 2**17 and min(size) == 1:
        with pytest.raises(UserError, match=words):
            save_image(Image.new("RGB", size[::-1]), tmp_path / f"cat.{ending}")


def test_names_are_as_long_as_the_file_system_takes(tmp_path):
    longest = "c" * (os.pathconf(tmp_path, "PC_NAME_MAX") - len(".png"))
    check_outputs(numbered(tmp_path / f"{longest}.png", 1), SMALL)
    check_outputs(numbered(tmp_path / f"{longest[3:]}.png", 10), SMALL)
    for name, count in ((f"{longest}c.png", 1), (f"{longest}.png", 2), (f"{longest[2:]}.png", 10)):
        with pytest.raises(UserError, match="File name too long"):
            check_outputs(numbered(tmp_path / name, count), SMALL)
    assert os.listdir(tmp_path) == []


def pipe(path):
    os.mkfifo(path)


def read_only(path):
    path.touch()
    path.chmod(0o444)


@pytest.mark.parametrize("make, words", [
    (Path.mkdir, "is a folder"), (pipe, "is a device or a pipe"),
    (lambda path: path.symlink_to("/dev/full"), "is a device or a pipe"),
    (lambda path: path.symlink_to("nowhere/cat.png"), "nowhere does not exist"),
    (lambda path: path.symlink_to(path), "cannot be written"),
    pytest.param(read_only, "is read-only", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")),
])
def test_places_that_a_picture_cannot_take(tmp_path, make, words):
    path = tmp_path / "cat.png"
    make(path)
    with pytest.raises(UserError, match=words):
        check_outputs([path], SMALL)


@pytest.mark.parametrize("folder, words", [("no", "no does not exist"), ("/proc", "takes no files"), ("a\0b", "does not exist")])
def test_folders_that_take_no_files(tmp_path, monkeypatch, folder, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        check_outputs([Path(folder, "cat.png")], SMALL)


def test_a_picture_that_is_read_is_not_overwritten(tmp_path):
    picture = tmp_path / "cat.png"
    picture.touch()
    (tmp_path / "link.png").symlink_to("cat.png")
    for source in (picture, tmp_path / "link.png", tmp_path / "." / "cat.png"):
        with pytest.raises(UserError, match=r"is read to make the picture, and would be overwritten"):
            check_outputs([picture], SMALL, [source])
        with pytest.raises(UserError, match="would be overwritten"):
            check_outputs([tmp_path / "dog.png", picture], SMALL, [source])
    check_outputs([tmp_path / "dog.png"], SMALL, [picture])


def test_two_outputs_are_two_files(tmp_path):
    (tmp_path / "cat-2.png").symlink_to("cat-1.png")
    with pytest.raises(UserError, match=r"cat-1.png and .*cat-2.png are the same file"):
        check_outputs(numbered(tmp_path / "cat.png", 2), SMALL)


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(10**9, 10**9 - 10**6, 10**6))
    check_outputs([tmp_path / "cat.bmp"], (512, 512))  # 0.79 MB
    with pytest.raises(UserError, match=r"the pictures take 1.6 MB or more, and .* has 1.0 MB left"):
        check_outputs(numbered(tmp_path / "cat.bmp", 2), (512, 512))
    with pytest.raises(UserError, match=r"the pictures take 2.6 MB or more"):
        check_outputs(numbered(tmp_path / "cat.png", 100), (512, 512))
