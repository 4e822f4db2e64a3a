"""Finished pictures become files one by one, or one grid."""

import os

import pytest
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.pictures import delivery as module
from kandinsky_mindir.runner.pictures.delivery import Delivery
from PIL import Image

COLORS = ["red", "lime", "blue", "white", "black", "yellow"]


def pictures(count, fault=None):
    for color in COLORS[:count]:
        yield Image.new("RGB", (8, 4), color)
    if fault:
        raise fault


def no_text(row):
    return {"row": str(row)}


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), KeyboardInterrupt()])
def test_a_fault_leaves_the_pictures_before_it(tmp_path, fault):
    delivery = Delivery(tmp_path / "cat.png", 6, False, (4, 8))
    written = []
    with pytest.raises(type(fault)):
        for path in delivery.write(pictures(2, fault), no_text):
            written.append(path)
            assert path.exists()  # as soon as it is told
    assert written == [tmp_path / "cat-1.png", tmp_path / "cat-2.png"] and len(os.listdir(tmp_path)) == 2
    with Image.open(written[1]) as second:
        assert second.text["row"] == "1" and second.getpixel((0, 0)) == (0, 255, 0)


def test_a_grid(tmp_path):
    delivery = Delivery(tmp_path / "grid.png", 6, True, (4, 8))
    assert list(delivery.write(pictures(6), no_text)) == [tmp_path / "grid.png"]
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (24, 8) and grid.text["row"] == "None"
        assert [grid.getpixel((x, y)) for y in (0, 4) for x in (0, 8, 16)] == [
            (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (255, 255, 0)]


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), KeyboardInterrupt()])
def test_an_unfinished_grid_is_kept_under_a_name_that_says_so(tmp_path, fault):
    delivery = Delivery(tmp_path / "grid.png", 6, True, (4, 8))
    with pytest.warns(UserWarning, match=r"2 of 6 pictures were made: they are in .*grid-unfinished.png"):
        with pytest.raises(type(fault)):
            list(delivery.write(pictures(2, fault), no_text))
    assert os.listdir(tmp_path) == ["grid-unfinished.png"]
    with Image.open(tmp_path / "grid-unfinished.png") as grid:
        assert grid.getpixel((8, 0)) == (0, 255, 0) and grid.getpixel((16, 0)) == (0, 0, 0) and not grid.text


def test_a_grid_that_memory_cannot_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available", lambda: 10**7)
    Delivery(tmp_path / "grid.png", 6, True, (512, 512)).check()  # 9.4 MB: two rows of three, 6 bytes a pixel
    with pytest.raises(UserError, match=r"a grid of 2x4 pictures has 1024x2048 pixels and takes 12.6 MB of memory, 10.0 MB"):
        Delivery(tmp_path / "grid.png", 8, True, (512, 512)).check()
    Delivery(tmp_path / "grid.png", 8, False, (512, 512)).check()


def test_a_grid_too_large_for_its_format(tmp_path):
    with pytest.raises(UserError, match="a picture of 512x18944 pixels is too large for WEBP"):
        Delivery(tmp_path / "grid.webp", 37, True, (512, 512)).check()  # a prime: one row
