"""Layouts of `.ms` files: what they say is put together; a damaged one, or one whose sources are, is refused."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from damage import assert_one_line, cut
from kandinsky_mindir.runner.bundle.ms_layout import HOLE, LITE_WEIGHTS, UNIT, WEIGHTS, Layout, Stretch

# A small layout: four bytes, a weight, another, a byte, a hole, a byte, pages of a weight.
STRETCHES = [
    Stretch(4, WEIGHTS, 64, 24), Stretch(28, LITE_WEIGHTS, 1, 5), Stretch(34, HOLE, 0, UNIT - 35),
    Stretch(UNIT, WEIGHTS, 2 * UNIT, UNIT),
]  # fmt: skip


@pytest.fixture
def small(tmp_path):
    np.arange(3 * UNIT // 4, dtype="<f4").tofile(tmp_path / WEIGHTS)
    (tmp_path / LITE_WEIGHTS).write_bytes(b"-plain")
    path = tmp_path / "small.ms.layout"
    path.write_bytes(Layout(STRETCHES, b"head" + b"!" + b"?").dump())
    return path


def test_assembling(small):
    with Layout.read(small).assemble(small) as file:
        expected = b"head" + np.arange(16, 22, dtype="<f4").tobytes() + b"plain" + b"!" + bytes(UNIT - 35) + b"?"
        assert Path(file.path).read_bytes() == expected + bytes(UNIT)  # which will be mapped
        assert Path(file.table.path).read_text() == f"raw {UNIT} {UNIT} {2 * UNIT} {small.with_name(WEIGHTS)}\n"


def test_what_it_takes(small):
    layout = Layout.read(small)
    assert (layout.size, layout.weight_bytes, layout.sources) == (2 * UNIT, 6 + 24 + 5 + UNIT, [WEIGHTS, LITE_WEIGHTS])


@pytest.mark.parametrize("change", [{"source": HOLE}, {"position": UNIT + 64}, {"offset": 64}, {"length": UNIT - 4}])
def test_only_whole_pages_are_mapped(change):
    assert STRETCHES[3].mapped and not STRETCHES[3]._replace(**change).mapped


@pytest.mark.parametrize("change", [
    {"position": 3 * 2**40}, {"position": 27}, {"source": "../unet/weights.bin"}, {"source": 1}, {"offset": -1},
    {"length": 0}, {"length": 5.0}, {"length": True}, {"length": 2**32, "source": HOLE},
])  # fmt: skip
def test_layouts_whose_table_is_wrong(small, change):
    small.write_bytes(Layout([STRETCHES[0], STRETCHES[1]._replace(**change), *STRETCHES[2:]], b"head!?").dump())
    assert_one_line(r"small.ms.layout cannot be read .* damaged; export the bundle again", lambda: Layout.read(small))


@pytest.mark.parametrize("table", [[[4, WEIGHTS]], ["ab"], [3], 7, {"a": 1}, None])
def test_layouts_whose_table_is_none(small, table):
    small.write_bytes(lzma.compress(json.dumps(table).encode() + b"\nhead!"))
    assert_one_line(r"small.ms.layout cannot be read .* damaged", lambda: Layout.read(small))


@pytest.mark.parametrize("content", [b"", b"no layout", lzma.compress(b"no table\nhead")])
def test_files_that_are_no_layout(small, content):
    small.write_bytes(content)
    assert_one_line(r"small.ms.layout cannot be read .* damaged", lambda: Layout.read(small))


def test_a_cut_layout(small):
    cut(small, -10)
    assert_one_line(r"small.ms.layout cannot be read .* damaged", lambda: Layout.read(small))


@pytest.mark.parametrize("name", [WEIGHTS, LITE_WEIGHTS])
@pytest.mark.parametrize("keep, message", [
    (-1, "ends before what small.ms.layout takes"), (0, "cannot be read .* damaged"),
])  # fmt: skip
def test_a_cut_weight_file(small, name, keep, message):
    cut(small.with_name(name), keep)
    assert_one_line(f"/{name} {message}", lambda: Layout.read(small).assemble(small))


def test_a_file_that_lite_refuses_is_named(small, engine):
    with Layout.read(small).assemble(small) as file:
        assert_one_line("small.ms.layout: MindSpore Lite cannot use it", lambda: engine.load(file))
    empty = small.with_name("empty.ms")
    empty.write_bytes(b"")
    assert_one_line("empty.ms: .*the file is empty", lambda: engine.load(empty))
