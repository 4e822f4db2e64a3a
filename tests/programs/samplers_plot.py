"""Draws error against steps for every sampler, on data whose every distribution is known (normal_data.py):

    python tests/programs/samplers_plot.py artifacts/micro/samplers_order.png

One panel a sampler, both axes logarithmic. Gray: its order of accuracy, on the ideal ground: a Karras grid, or 65,536
training timesteps, down to a noise level above zero; the dashes fall with the power of the number of steps that they
name. Blue and orange: the last step and the 1,000 training timesteps included, as a user meets it on Kandinsky.
"""

import argparse
import math
from pathlib import Path

import support_path  # noqa: F401

# isort: split
import numpy as np
from canvas import BLUE, FAINT, GRAY, INK, ORANGE, Canvas
from kandinsky_mindir.runner import schedulers
from kandinsky_mindir.runner.common.errors import UserError
from normal_data import distance
from scheduler_reference import KANDINSKY

TRAIN = 2**16  # training timesteps, nearly continuous; the whole process is as noisy as Kandinsky's
FINE = {"num_train_timesteps": TRAIN, "beta_start": 0.85 / TRAIN, "beta_end": 12 / TRAIN, "clip_sample": False,
        "timestep_spacing": "leading", "original_inference_steps": 256, "variance_type": "fixed_small"}  # fmt: skip
GRID = {"beta_start": 0.00085, "beta_end": 0.012, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
OWN = {**KANDINSKY, "variance_type": "fixed_small"}  # this model predicts no variance
DOUBLINGS, STEPS = (8, 16, 32, 64, 128, 256), (5, 7, 10, 15, 20, 25, 35, 50, 75, 100)
# What the papers promise of the distribution: DPM-Solver++ 2M and its SDE 2, UniPC one more than its predictor.
ORDERS = {
    "ddpm": 1, "ddim": 1, "unclip": 1, "dpmpp-2m": 2, "dpmpp-2m-sde": 2, "dpmpp-3m": 2, "dpmpp-2s": 2,
    "dpmpp-2s-sde": 1, "dpmpp-3s": 3, "unipc": 3, "deis": 2, "pndm": 2, "euler": 1, "euler-a": 1, "heun": 2, "sa": 2,
    "lcm": None, "tcd": None,  # made for distilled models: with an ordinary one more steps do not help
}  # fmt: skip


def fine_error(name: str, steps: int) -> float:
    """The error at the last level above zero, or at an eighth of the timesteps, past which no polynomial in them
    follows the noise."""
    cls, own = schedulers.SHORT_NAMES[name]
    on_grid = "use_karras_sigmas" in cls.OPTIONS
    ground = {key: value for key, value in (GRID if on_grid else FINE).items() if key in cls.OPTIONS}
    if name == "unclip":
        ground = {"num_train_timesteps": TRAIN, "clip_sample": False}
    schedule = cls(**ground, **own).schedule(steps)
    if on_grid:
        return distance(schedule, len(schedule.timesteps) - (schedule.sigmas[-1] == 0))
    return distance(schedule, int(np.abs(schedule.timesteps - TRAIN / 8).argmin()))


def own_error(name: str, steps: int) -> float:
    """The error of the picture, on Kandinsky's own noise schedule."""
    base = {"clip_sample": False} if name == "unclip" else OWN
    schedule = schedulers.create_by_name(name, base).schedule(steps)
    return distance(schedule, len(schedule.timesteps))


def curve(error, name: str, counts) -> list[tuple[int, float]]:
    points = []
    for steps in counts:
        try:
            points.append((steps, error(name, steps)))
        except UserError:  # more steps than the sampler can take
            break
    return points


COLUMNS, WIDTH, HEIGHT = 4, 250, 180  # panels in a row; of a panel, in pixels
LEFT, TOP, GAP, TITLE = 56, 66, 24, 34
X, Y = (4, 300), (1e-6, 1)
X_TICKS, Y_TICKS = (5, 10, 25, 50, 100, 250), {1: "1", 1e-2: "0.01", 1e-4: "1e-4", 1e-6: "1e-6"}


class Sheet(Canvas):
    """Panels with common axes."""

    def __init__(self, panels: int):
        rows = math.ceil(panels / COLUMNS)
        super().__init__((LEFT + COLUMNS * (WIDTH + GAP) - 8, TOP + rows * (HEIGHT + GAP + TITLE)))

    def dashes(self, start, end, ink):
        count = max(2, round(math.dist(start, end) / 9))
        points = [tuple(a + (b - a) * i / count for a, b in zip(start, end)) for i in range(count + 1)]
        for i in range(0, count, 2):
            self.line(points[i : i + 2], ink, 1.3)

    def corner(self, index):
        return (LEFT + index % COLUMNS * (WIDTH + GAP), TOP + index // COLUMNS * (HEIGHT + GAP + TITLE))


def place(corner, steps, error):
    """Where a point of a panel lies; errors below the axis lie on it."""
    across = math.log(steps / X[0]) / math.log(X[1] / X[0])
    up = math.log(max(error, Y[0]) / Y[0]) / math.log(Y[1] / Y[0])
    return corner[0] + across * WIDTH, corner[1] + (1 - up) * HEIGHT


def panel(sheet: Sheet, index: int, name: str):
    corner = sheet.corner(index)
    for tick, label in Y_TICKS.items():
        x, y = place(corner, X[0], tick)
        sheet.line([(x, y), (x + WIDTH, y)], FAINT, 1)
        if index % COLUMNS == 0:
            sheet.text(x - 7, y, label, 12, GRAY, "rm")
    for tick in X_TICKS:
        x, y = place(corner, tick, Y[0])
        sheet.line([(x, y), (x, y - HEIGHT)], FAINT, 1)
        sheet.text(x, y + 5, str(tick), 12, GRAY, "ma")
    sheet.text(corner[0], corner[1] - 6, name, 15, INK, "ls")
    fine = curve(fine_error, name, DOUBLINGS)
    order = ORDERS[name]
    if order:
        sheet.text(corner[0] + WIDTH, corner[1] - 6, f"order {order}", 13, GRAY, "rs")
        (last, error), first = fine[-1], DOUBLINGS[0]
        first = max(first, last * (error / Y[1]) ** (1 / order))
        sheet.dashes(place(corner, first, error * (last / first) ** order), place(corner, last, error), GRAY)
    else:
        sheet.text(corner[0] + WIDTH, corner[1] - 6, "for distilled models", 13, GRAY, "rs")
    sheet.line([place(corner, *point) for point in fine], GRAY, dots=True)
    for shown, ink in ((name, BLUE), (f"{name}-karras", ORANGE)):
        if shown in schedulers.SHORT_NAMES:
            sheet.line([place(corner, *point) for point in curve(own_error, shown, STEPS)], ink, dots=True)


def legend(sheet: Sheet, index: int):
    x, y = sheet.corner(index)
    for row, (ink, lines) in enumerate((
        (BLUE, ("on Kandinsky's noise schedule,", "to the finished picture")),
        (ORANGE, ("the same on a Karras grid", "(NAME-karras)")),
        (GRAY, ("on ideal ground, to a level of noise", "above zero: shows the order")),
    )):
        at = y + 14 + row * 56
        sheet.line([(x, at), (x + 18, at), (x + 36, at)], ink, dots=True)
        for i, text in enumerate(lines):
            sheet.text(x + 48, at - 9 + i * 18, text, 14)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    sheet = Sheet(len(ORDERS) + 2)
    sheet.text(LEFT, 12, "Distance of what a sampler makes from the true distribution, against its number of steps", 18)
    for index, name in enumerate(ORDERS):
        panel(sheet, index, name)
    legend(sheet, len(ORDERS))
    sheet.save(output)


if __name__ == "__main__":
    main()
