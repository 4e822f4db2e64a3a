"""What nodes make in an hour, how many a load needs, and what a bounded queue does when twice as much is asked as can be made.

  python tests/benchmarks/scale.py [--prior-steps 25] [--steps 20] [--day 1000000] [--waiting 16] [--tables README.md]

Seconds of the parts are those that peers.py measured, read from its tables in README.md; the rest is arithmetic: a picture
takes the text encoder once, the prior's and the UNet's steps, and MoVQ, with models that stay loaded, as in a batch and in
the service. A part that was not measured at a size counts by its pixels. Nodes are those of the tables. The queue is
simulated: one node, callers that come at random (a Poisson process), pictures that all take as long, and callers who are
refused when `--waiting` others wait.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import deque
from pathlib import Path

import numpy as np

TABLES = Path(__file__).with_name("README.md")
SIZES = (512, 768)
SYSTEMS = ("ours", "packed")
CALLERS = 20_000  # of the simulation: shares are then right to about 0.005, by the binomial law


def measured(text: str) -> dict[tuple[str, str], float]:
    """Seconds by (case, system)."""
    rows = re.findall(r"^\| ([\w ]+?) \| (\w+) \| (\d[\d.]*) \|", text, re.MULTILINE)
    return {(case, system): float(seconds) for case, system, seconds in rows}


def at_size(found: dict[tuple[str, str], float], case: str, system: str, side: int) -> float:
    """Seconds of a part at side x side pixels; by its pixels from the size that was measured."""
    key = (case.format(f"{side}x{side}"), system)
    if key in found:
        return found[key]
    known = max(other for other in SIZES if (case.format(f"{other}x{other}"), system) in found)
    return found[(case.format(f"{known}x{known}"), system)] * (side / known) ** 2


def seconds_of_a_picture(found: dict[tuple[str, str], float], system: str, side: int, prior_steps: int, steps: int) -> float:
    return (found["text_encoder", system] + prior_steps * found["prior batch 2", system]
            + steps * at_size(found, "unet {} batch 2", system, side) + at_size(found, "movq {}", system, side))


def overload(seconds: float, load: float, waiting: int, callers: int = CALLERS, seed: int = 0) -> tuple[float, float, float]:
    """(share refused, mean wait of the accepted, their longest wait), in seconds, with `load` times what can be made."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(seconds / load, callers))
    ends: deque[float] = deque()  # of those who were accepted and are not done, in order
    waits, refused = [], 0
    for now in arrivals:
        while ends and ends[0] <= now:
            ends.popleft()
        if len(ends) > waiting:  # one is being made, the others wait
            refused += 1
            continue
        start = max(now, ends[-1]) if ends else now
        waits.append(start - now)
        ends.append(start + seconds)
    return refused / callers, float(np.mean(waits)), float(np.max(waits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("prior-steps", 25), ("steps", 20), ("day", 1_000_000), ("waiting", 16)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--tables", type=Path, default=TABLES)
    args = parser.parse_args()
    found = measured(args.tables.read_text())
    print(f"| size | system | seconds a picture | pictures an hour a node | nodes for {args.day:,} a day |")
    print("| --- | --- | --- | --- | --- |")
    for side in SIZES:
        for system in SYSTEMS:
            seconds = seconds_of_a_picture(found, system, side, args.prior_steps, args.steps)
            print(f"| {side}x{side} | {system} | {seconds:.0f} | {3600 / seconds:.1f} | {math.ceil(args.day * seconds / 86400):,} |")
    print("\n| load | size | refused | mean wait, min | longest wait, min |")
    print("| --- | --- | --- | --- | --- |")
    for load in (0.8, 1.0, 2.0):
        for side in SIZES:
            seconds = seconds_of_a_picture(found, "packed", side, args.prior_steps, args.steps)
            refused, mean, longest = overload(seconds, load, args.waiting)
            print(f"| {load:.1f} | {side}x{side} | {100 * refused:.0f}% | {mean / 60:.0f} | {longest / 60:.0f} |")


if __name__ == "__main__":
    main()
