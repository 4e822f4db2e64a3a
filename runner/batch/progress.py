"""How far a batch is: pictures, pictures a minute, time left."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

from tqdm import tqdm

from ..common.errors import one_line

FORMAT = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}, {per_minute} a minute, {remaining} left"
LINES = FORMAT.replace("|{bar}| ", "")
SECONDS_BETWEEN_LINES = 60.0


class Progress(tqdm):
    """On a terminal a bar; elsewhere a line a minute, for logs."""

    def __init__(self, total: int, there: int, quiet: bool):
        tqdm.set_lock(threading.RLock())  # its own, among processes, is left over when the command is killed
        stream = sys.stderr
        bar = stream.isatty()
        super().__init__(
            total=total, initial=there, disable=quiet, unit="picture", smoothing=0.1, dynamic_ncols=True, leave=bar,
            file=stream if bar else Lines(stream), bar_format=FORMAT if bar else LINES,
            mininterval=0.5 if bar else SECONDS_BETWEEN_LINES, maxinterval=SECONDS_BETWEEN_LINES,
        )  # fmt: skip

    @property
    def format_dict(self) -> dict[str, Any]:
        found = super().format_dict
        rate = found["rate"] or ((found["n"] - found["initial"]) / found["elapsed"] if found["elapsed"] else 0)
        return {**found, "per_minute": f"{60 * rate:.3g}" if rate else "?"}

    def tick(self, ended: int) -> None:
        self.update(ended)
        if not ended and not self.disable and not isinstance(self.fp, Lines):
            self.refresh()  # the time left goes on


class Lines:
    """A stream that writes each state of a bar as a line."""

    def __init__(self, stream: TextIO):
        self._stream, self._last = stream, ""

    def write(self, text: str) -> None:
        line = one_line(text.replace("\r", "\n"))
        if line and line != self._last:
            self._last = line
            print(line, file=self._stream)

    def flush(self) -> None:
        self._stream.flush()
