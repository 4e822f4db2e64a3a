"""Recipes of `.ms` files: what they say is put together; a damaged one, or one whose sources are, is refused."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from damage import assert_one_line, cut
from kandinsky_mindir.runner.ms_file import LITE_WEIGHTS, WEIGHTS, Piece, Recipe

# A small recipe: four bytes, a weight of one filter with two channels of three pixels, a plain tensor, one byte.
PIECES = [Piece(4, WEIGHTS, 64, 24, channels=2, pixels=3), Piece(28, LITE_WEIGHTS, 1, 5)]


@pytest.fixture
def small(tmp_path):
    weight = np.arange(6, dtype="<f4")
    (tmp_path / WEIGHTS).write_bytes(bytes(64) + weight.tobytes())
    (tmp_path / LITE_WEIGHTS).write_bytes(b"-plain")
    path = tmp_path / "small.ms.recipe"
    path.write_bytes(Recipe(PIECES, b"head" + b"!").dump())
    return path


def test_assembling(small):
    with Recipe.read(small).assemble(small) as file:
        expected = b"head" + np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes() + b"plain" + b"!"
        assert Path(file.path).read_bytes() == expected


@pytest.mark.parametrize("change", [
    {"position": 3 * 2**40}, {"position": 27}, {"source": "../unet/weights.bin"}, {"source": 1}, {"offset": -1},
    {"length": 0}, {"length": 5.0}, {"length": True}, {"length": 6, "pixels": 2}, {"channels": 0}, {"pixels": -1},
])  # fmt: skip
def test_recipes_whose_table_is_wrong(small, change):
    small.write_bytes(Recipe([PIECES[0], PIECES[1]._replace(**change)], b"head!").dump())
    assert_one_line(r"small.ms.recipe cannot be read .* damaged; export the bundle again", lambda: Recipe.read(small))


@pytest.mark.parametrize("table", [[[4, WEIGHTS]], ["ab"], [3], 7, {"a": 1}, None])
def test_recipes_whose_table_is_none(small, table):
    small.write_bytes(lzma.compress(json.dumps(table).encode() + b"\nhead!"))
    assert_one_line(r"small.ms.recipe cannot be read .* damaged", lambda: Recipe.read(small))


@pytest.mark.parametrize("content", [b"", b"no recipe", lzma.compress(b"no table\nhead")])
def test_files_that_are_no_recipe(small, content):
    small.write_bytes(content)
    assert_one_line(r"small.ms.recipe cannot be read .* damaged", lambda: Recipe.read(small))


def test_a_cut_recipe(small):
    cut(small, -10)
    assert_one_line(r"small.ms.recipe cannot be read .* damaged", lambda: Recipe.read(small))


@pytest.mark.parametrize("name", [WEIGHTS, LITE_WEIGHTS])
@pytest.mark.parametrize("keep, message", [
    (-1, "ends before what small.ms.recipe takes"), (0, "cannot be read .* damaged"),
])  # fmt: skip
def test_a_cut_weight_file(small, name, keep, message):
    cut(small.with_name(name), keep)
    assert_one_line(f"/{name} {message}", lambda: Recipe.read(small).assemble(small))


def test_a_file_that_lite_refuses_is_named(small, engine):
    with Recipe.read(small).assemble(small) as file:
        assert_one_line("small.ms.recipe: MindSpore Lite cannot use it", lambda: engine.load(file))
    empty = small.with_name("empty.ms")
    empty.write_bytes(b"")
    assert_one_line("empty.ms: .*the file is empty", lambda: engine.load(empty))
