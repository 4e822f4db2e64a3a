"""The picture of peers.py's table: its bars are as long as the table's figures."""

import numpy as np
import peers_plot
from PIL import Image

TABLE = """\
| case | system | seconds | to the best peer | of the matrix product | load s | peak GB | disk GB |
| --- | --- | --- | --- | --- | --- | --- | --- |
| movq 16x16 | ours | 2 | 0.50 | 80% | 3.0 | 0.50 | 0.260 |
| movq 16x16 | openvino | 4 | 1.00 | 40% | 1.0 | 2.00 | 0.162 |
| movq 16x16 | compiled | failed: no room | | | | | |
| picture 16x16 | ours | 9.5 |  |  | in it | 1.00 | 0.260 |

- ours: this project.
"""


def test_read():
    cases = peers_plot.read(TABLE)
    assert {case: [row.system for row in rows] for case, rows in cases.items()} == {
        "movq 16x16": ["ours", "openvino"], "picture 16x16": ["ours"]}  # fmt: skip
    assert cases["movq 16x16"][0] == ("movq 16x16", "ours", 2.0, 0.5, 3.0, 0.5)
    assert cases["picture 16x16"][0][3:5] == (None, None)  # no peer, and loading is in its seconds


def test_a_panel_without_bars(tmp_path):
    """Of pictures alone there are no loads, without a peer no ratios."""
    lines = TABLE.splitlines(keepends=True)
    peers_plot.draw(peers_plot.read("".join(line for line in lines if "movq" not in line))).save(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").exists()


def test_bars(tmp_path):
    """Each is as long as its figure, of the longest in its panel; a pixel is lost or won at each end."""
    peers_plot.draw(peers_plot.read(TABLE)).save(tmp_path / "plot.png")
    pixels = np.array(Image.open(tmp_path / "plot.png").convert("RGB"))
    table = {
        (0, "ours"): 0.5, (0, "openvino"): 1.0, (1, "ours"): 3 / 3, (1, "openvino"): 1 / 3,
        (2, "ours"): 0.5 / 2, (2, "openvino"): 1.0,
    }  # fmt: skip
    for (panel, system), share in table.items():
        x = peers_plot.LEFT + panel * (peers_plot.WIDTH + peers_plot.GAP)
        y = peers_plot.TOP + (system == "openvino") * peers_plot.BAR + peers_plot.BAR // 2 - 2
        bar = pixels[y, x : x + peers_plot.WIDTH + 2].astype(int)
        ink = np.array([int(peers_plot.INKS[system][i : i + 2], 16) for i in (1, 3, 5)])
        length = (abs(bar - ink).max(axis=1) < 24).sum()  # the palette has 64 colours
        assert abs(length - share * peers_plot.WIDTH) <= 2
