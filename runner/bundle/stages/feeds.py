"""What a graph's inputs are in its sealed example: values that the graphs before it made, constants, or noise.

These are descriptions. Whoever writes sealed examples (export/contents/seal_examples.py) turns them into arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tokens:
    """The tokens of the example's prompt. field: "input_ids" (1, 77), "end_position" (1,) or "mask" (1, 77)."""

    field: str


@dataclass(frozen=True)
class Constant:
    """A constant of the bundle (see Bundle.constants)."""

    name: str


@dataclass(frozen=True)
class Output:
    """The output `name` of another stage's graph for batch 1: in its own example, or with `given` as its inputs."""

    stage: str
    name: str
    given: Mapping[str, Feed] | None = None


@dataclass(frozen=True)
class Scaled:
    """feed * std + mean; both are names of constants."""

    feed: Feed
    mean: str
    std: str


@dataclass(frozen=True)
class GuidancePair:
    """The unconditional and the conditional value, joined on `axis`; a graph for batch 1 gets the conditional one."""

    unconditional: Feed
    conditional: Feed
    axis: int = 0


@dataclass(frozen=True)
class TimeProj:
    """The sinusoid of the example's timestep, as wide as the input, with the options of the stage's part."""


Feed = Any  # one of the classes above
