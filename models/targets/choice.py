"""For which target cells are built, and layers that have a class for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

CPU, ASCEND = "cpu", "ascend"
TARGETS = (CPU, ASCEND)
_target = ContextVar("target", default=CPU)


@contextmanager
def building_for(target: str) -> Iterator[None]:
    """Cells that are made in this block are made of the layers of `target`, one of TARGETS."""
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}: use one of {', '.join(TARGETS)}")
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


class Choice:
    """A layer with a class for each target: called, it makes one of the target that cells are built for."""

    def __init__(self, cpu, ascend):
        self.classes = {CPU: cpu, ASCEND: ascend}

    def __call__(self, *args, **options):
        return self.classes[_target.get()](*args, **options)
