"""Ways from one key of a film to the next: where a frame stands, and what lies between two arrays. Float64 inside.

slerp: Shoemake, "Animating rotation with quaternion curves", 1985, equation for great arcs, in any number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..common.errors import UserError

ALIGNED = 1e-6  # sine of the angle below which the arc is a straight line to float32's precision


def place(number: int, frames: int, keys: int, loop: bool) -> tuple[int, float]:
    """(the key that frame `number` leaves, from 0; the share of the way to the next one that lies behind it, below 1).

    Frames are evenly spaced. A loop goes back from the last key to the first: its last frame is one step before the first.
    """
    steps, ways = (frames, keys) if loop else (max(frames - 1, 1), keys - 1)
    key, rest = divmod(number * ways, steps)
    return key, rest / steps


def eased(share: float, easing: str, hold: float) -> float:
    """The share of the way after a stop at both keys, each for `hold` / 2 of the way's time, and with an easing's speed."""
    moving = (share - hold / 2) / (1 - hold)
    return EASINGS[easing](min(max(moving, 0.0), 1.0))


def lerp(start: np.ndarray, stop: np.ndarray, share: float) -> np.ndarray:
    """The straight line from `start` to `stop`, float32."""
    if share in (0, 1):
        return stop if share else start
    return ((1 - share) * start.astype(np.float64) + share * stop.astype(np.float64)).astype(np.float32)


def slerp(start: np.ndarray, stop: np.ndarray, share: float) -> np.ndarray:
    """The direction on the great arc from `start` to `stop`, with the length on the line between their lengths, float32.

    UserError if they point in opposite directions, between which there are many arcs.
    """
    if share in (0, 1):
        return stop if share else start
    one, other = start.astype(np.float64), stop.astype(np.float64)
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    if not all(lengths):
        return lerp(start, stop, share)
    one, other = one / lengths[0], other / lengths[1]
    # of both halves of the chord and of the sum: exact for small angles, where arccos is not (Kahan 2006, section 12)
    angle = 2 * math.atan2(float(np.linalg.norm(one - other)), float(np.linalg.norm(one + other)))
    if math.sin(angle) < ALIGNED:
        if angle > 1:
            raise UserError("two keys point in opposite directions, between which there is no one arc: choose lerp")
        return lerp(start, stop, share)
    arc = (math.sin((1 - share) * angle) * one + math.sin(share * angle) * other) / math.sin(angle)
    return (arc * ((1 - share) * lengths[0] + share * lengths[1])).astype(np.float32)


def circle(start: np.ndarray, stop: np.ndarray, share: float) -> np.ndarray:
    """A round through `start` and `stop`, a quarter apart, float32: of independent normal numbers, each place is one, too."""
    angle = 2 * math.pi * share
    return (math.cos(angle) * start.astype(np.float64) + math.sin(angle) * stop.astype(np.float64)).astype(np.float32)


def between(values: Sequence[np.ndarray], key: int, share: float, way: str) -> np.ndarray:
    """What lies after `share` of the way from value number `key` to the next; after the last one comes the first."""
    return WAYS[way](values[key], values[(key + 1) % len(values)], share)


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {"slerp": slerp, "lerp": lerp}
EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "smoothstep": lambda share: share * share * (3 - 2 * share),
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
}
