"""Free disk is judged before the work."""

from types import SimpleNamespace

import pytest
from damage import assert_one_line
from kandinsky_mindir.export import room
from kandinsky_mindir.export.room import GRAPHS, MARGIN, check_room, estimate

REAL = {"text_encoder": 2_780_000_000, "image_encoder": 7_380_000_000, "prior": 4_110_000_000, "unet": 5_010_000_000, "movq": 270_000_000}


def test_the_estimate():
    """Weights with a margin, and three copies of the largest piece that is converted at a time."""
    assert estimate([100_000_000]) == 100_000_000 + 100_000_000 * MARGIN + GRAPHS + 4 * 100_000_000
    assert estimate(list(REAL.values())) == int(sum(REAL.values()) * (1 + MARGIN)) + GRAPHS + 3 * 1_500_000_000
    assert estimate([1_000_000_000], written=False) == 1_000_000_000 * MARGIN + GRAPHS + 3_000_000_000


@pytest.mark.parametrize("missing", [1, 0])
def test_too_small_a_disk_is_said_with_both_figures(tmp_path, monkeypatch, missing):
    need = estimate(list(REAL.values()))
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=need - missing))
    if missing:
        assert_one_line(r"has 26\.02 GB of free disk and the export takes about 26\.02 GB: make room, or choose an --output",
                        lambda: check_room(tmp_path / "bundle", REAL))
    else:
        check_room(tmp_path / "bundle", REAL)


def test_nothing_to_make_needs_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    check_room(tmp_path / "bundle", {})
