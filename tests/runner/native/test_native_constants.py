"""What the C++ program says once more of what Python says."""

import re
from pathlib import Path

from kandinsky_mindir.runner.bundle import packed
from kandinsky_mindir.runner.engine.wheel import VERSION

BUNDLE = Path(packed.__file__).parents[1] / "native" / "bundle" / "bundle.cc"


def test_packed_weights_are_known_by_the_same_words():
    (version, order), = re.findall(r'kLiteVersion = "(.*?)", kOrder = " (\d+)"', BUNDLE.read_text())
    assert (version, int(order)) == (VERSION, packed.ORDER)
