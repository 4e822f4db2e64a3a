"""Labelled sheets: every picture where it belongs, no caption wider than its cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.pictures.contact_sheet import _wrap, labelled_sheet
from PIL import Image, ImageFont

COLORS = [["red", "lime", "blue"], ["black", "magenta"]]


@pytest.mark.parametrize("title", [None, "A title"])
def test_pictures_stand_in_rows_on_white(title):
    rows = [[(Image.new("RGB", (10, 10), color), color) for color in row] for row in COLORS]
    sheet = labelled_sheet(rows, title=title, cell=40)
    pixels = np.asarray(sheet)
    assert (pixels[[0, -1]] == 255).all() and (pixels[:, [0, -1]] == 255).all()
    centers = []
    for row in COLORS:
        for color in row:
            y, x = np.nonzero((pixels == Image.new("RGB", (1, 1), color).getpixel((0, 0))).all(axis=-1))
            # 40 x 40 pixels of a color that captions, which are gray, never have
            assert len(y) == 1600 and np.ptp(y) == np.ptp(x) == 39
            centers.append((y.mean(), x.mean()))
    assert centers[0][0] == centers[1][0] == centers[2][0] < centers[3][0] == centers[4][0]
    assert centers[0][1] == centers[3][1] < centers[1][1] == centers[4][1] < centers[2][1]


def test_captions_are_drawn_below_their_picture():
    rows = [[(Image.new("RGB", (10, 10), "red"), "word"), (Image.new("RGB", (10, 10), "red"), "")]]
    pixels = np.asarray(labelled_sheet(rows, cell=60)).astype(int)
    dark = np.nonzero(pixels.sum(axis=-1) < 200)  # text, and nothing else on this sheet
    red = np.nonzero(pixels[:, :, 1] == 0)
    assert len(dark[0]) and dark[0].min() > red[0].max() and dark[1].max() < 12 + 60


def test_pictures_keep_their_shape():
    pixels = np.asarray(labelled_sheet([[(Image.new("RGB", (100, 50), "red"), "wide")]], cell=40))
    y, x = np.nonzero((pixels == (255, 0, 0)).all(axis=-1))
    assert (np.ptp(y) + 1, np.ptp(x) + 1) == (20, 40)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(st.text("abcW.", min_size=1, max_size=30), max_size=8).map(" ".join), width=st.integers(40, 300))
def test_captions_fit_and_lose_nothing_without_a_mark(text, width):
    font = ImageFont.load_default(12)
    lines = _wrap(text, font, width)
    assert len(lines) <= 2 and all(font.getlength(line) <= width for line in lines)
    if not any(line.endswith("...") for line in lines):
        assert " ".join(lines) == text


@pytest.mark.parametrize("rows, cell", [([], 40), ([[]], 40), ([[(Image.new("RGB", (4, 4)), "a")]], 0)])
def test_sheets_of_nothing_are_refused(rows, cell):
    with pytest.raises(UserError, match="a sheet needs"):
        labelled_sheet(rows, cell=cell)
