"""Lite's log: kept off the terminal, and read for the reason when something fails."""

from __future__ import annotations

import os
import re
from typing import IO

from ..common.memory_file import memory_file

ERROR_LEVEL = "3"  # of GLOG_v: enough to quote the reason when a graph is refused
ERROR_LINE = re.compile(r"^\[ERROR\] \w+\(.*?\):\S+ \[.*?\] (\w+)\] (.*)", re.MULTILINE)
HARMLESS = ("prim is nullptr", "Runtime error for null exception handler.")  # logged for graphs that run well, too
BYTES_READ = 1 << 20


class LiteLog:
    """The standard error of a program that runs Lite: a file in memory.

    It is the terminal instead, where GLOG_v asks for more than errors (0, 1 or 2). Nothing can be read from it then.
    """

    def __init__(self) -> None:
        self.file: IO[bytes] | None = None  # what subprocess takes as `stderr`
        if os.environ.get("GLOG_v") not in ("0", "1", "2"):
            self.file = open(memory_file("kandinsky-mindir-log"), "r+b", buffering=0)

    def environment(self) -> dict[str, str]:
        """Variables for the program, so that it logs what is read here."""
        return {**os.environ, "GLOG_v": ERROR_LEVEL} if self.file else dict(os.environ)

    def clear(self) -> None:
        """Forget what was logged so far. (The program shares the file's offset.)"""
        if self.file:
            self.file.seek(0)
            self.file.truncate()

    def reason(self) -> str:
        """The first cause that Lite logged: the lines after it only say which callers gave up. "" if there is none."""
        errors = [f"{place}: {message}" for place, message in ERROR_LINE.findall(self._read()) if message not in HARMLESS]
        caught = [error for error in errors if "Catch exception: " in error]
        return next(iter(caught + errors), "").strip()

    def last_line(self) -> str:
        return self._read().strip().rpartition("\n")[2]

    def close(self) -> None:
        if self.file:
            self.file.close()

    def _read(self) -> str:
        # pread leaves the file's offset alone, which the program shares
        return os.pread(self.file.fileno(), BYTES_READ, 0).decode(errors="replace") if self.file else ""
