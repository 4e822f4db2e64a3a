"""Progress bars that can be switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ProgressBar:
    """A tqdm bar for each diffusion, with the caller's `options`, any of tqdm's."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    @contextmanager
    def bar(self, total: int, name: str) -> Iterator[Any]:
        from tqdm import tqdm  # 50 ms: only where a bar is drawn

        with tqdm(**{"total": total, "desc": name, "dynamic_ncols": True, **self.options}) as bar:
            yield bar
