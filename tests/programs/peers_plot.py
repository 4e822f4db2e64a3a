"""Draws what benchmarks/peers.py wrote with --output:

    python tests/programs/peers_plot.py TABLE [TABLE ...] PICTURE.png

A row a case, a bar a system: time, as a ratio to the best peer's with the seconds beside it, time to load, peak memory.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import support_path  # noqa: F401

# isort: split
from canvas import BLUE, FAINT, GRAY, INK, ORANGE, Canvas

INKS = {"ours": BLUE, "packed": "#54aeff", "eager": GRAY, "compiled": "#afb8c1", "openvino": ORANGE}
NAMES = {"ours": "this project", "packed": "this project, packed", "eager": "torch", "compiled": "torch.compile",
         "openvino": "OpenVINO"}  # fmt: skip
LEFT, TOP, WIDTH, GAP, BAR = 150, 84, 210, 84, 13  # pixels; WIDTH of a panel, BAR of a bar with the space below it
BETWEEN = 12  # cases


class Row(NamedTuple):
    """A row of the table. ratio: to the best peer; None without one. load: None for a picture, whose seconds hold it."""

    case: str
    system: str
    seconds: float
    ratio: float | None
    load: float | None
    peak: float


# title, what a bar shows, what stands beside it
PANELS = (
    ("Time, to the best peer's", lambda row: row.ratio, lambda row: f"{row.ratio:.2f}  ({row.seconds:.3g} s)"),
    ("Load, seconds", lambda row: row.load, lambda row: f"{row.load:.0f}"),
    ("Peak memory, GB", lambda row: row.peak, lambda row: f"{row.peak:.1f}"),
)


def read(table: str) -> dict[str, list[Row]]:
    """case -> its rows. A system that failed has none."""
    cases = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line[:1] == "|" and len(cells) == 8 and cells[1] in NAMES and not cells[2].startswith("failed"):
            case, system, seconds, ratio, _, load, peak, _ = cells
            load = None if load == "in it" else float(load)
            row = Row(case, system, float(seconds), float(ratio) if ratio else None, load, float(peak))
            cases.setdefault(case, []).append(row)
    return cases


def draw(cases: dict[str, list[Row]]) -> Canvas:
    rows = [row for case in cases.values() for row in case]
    height = TOP + len(rows) * BAR + len(cases) * BETWEEN
    canvas = Canvas((LEFT + len(PANELS) * (WIDTH + GAP), height))
    at = LEFT
    for system in dict.fromkeys(row.system for row in rows):
        canvas.box(at, 18, 11, 11, INKS[system])
        canvas.text(at + 17, 23.5, NAMES[system], 14, anchor="lm")
        at += 42 + 7.2 * len(NAMES[system])
    for index, (title, value, label) in enumerate(PANELS):
        x = LEFT + index * (WIDTH + GAP)
        scale = WIDTH / (max(value(row) or 0 for row in rows) or 1)
        canvas.text(x, TOP - 16, title, 15, anchor="ls")
        if index == 0:
            canvas.line([(x + scale, TOP - 8), (x + scale, height - BETWEEN)], FAINT, 1.5)  # the best peer
        y = TOP
        for case, group in cases.items():
            if index == 0:
                for i, text in enumerate(two_lines(case)):
                    canvas.text(12, y + i * 17, text, 14)
            for row in group:
                if value(row) is not None:
                    canvas.box(x, y, max(1, value(row) * scale), BAR - 3, INKS[row.system])
                    canvas.text(x + value(row) * scale + 5, y + (BAR - 3) / 2, label(row), 11, INK, "lm")
                y += BAR
            y += BETWEEN
    return canvas


def two_lines(case: str) -> list[str]:
    part, _, rest = case.partition(" ")
    return [part.replace("_", " "), rest]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    cases = {case: rows for table in arguments.tables for case, rows in read(table.read_text()).items()}
    if not cases:
        parser.error("these files hold no table that peers.py wrote")
    draw(cases).save(arguments.output)


if __name__ == "__main__":
    main()
