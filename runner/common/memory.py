"""Memory: how much this process and those that run its models use, how much the machine has left, and budgets."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .control_groups import memory_left
from .errors import UserError

INTERVAL = 0.05  # seconds between two looks
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
PF_FORKNOEXEC = 0x40  # of the flags in /proc/PID/stat: include/linux/sched.h of Linux


def as_bytes(value: Any, name: str = "memory") -> int:
    """A budget in bytes: a number, or a text such as "12GB", "11.5 GiB", "800M". UserError for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"):
        return int(value)
    text = value.upper() if isinstance(value, str) else ""
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]?I?)B?\s*", text)
    if not match or match[2] not in UNITS or float(match[1]) == 0:
        raise UserError(f"{name} is {value!r}: it must be an amount of memory, for example 12GB")
    return int(float(match[1]) * UNITS[match[2]])


def as_text(size: float) -> str:
    """Bytes for people: "7.75 GB", "140.2 MB"."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def available() -> int:
    """Bytes that can be had without swapping: of the machine, and of the control groups that this process is in."""
    text = Path("/proc/meminfo").read_text()
    match = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    if match is None:
        raise UserError("/proc/meminfo does not say what memory is available: this needs Linux 3.14 or later")
    found, left = int(match[1]) * 1024, memory_left()
    return found if left is None else min(found, left)


def private() -> int:
    """Bytes of this process that are its alone."""
    return _private(os.getpid())


def in_use() -> int:
    """Bytes of this process and its descendants that are theirs alone: private memory, and files in memory, each once.

    Pages of files on disk do not count: the system takes them back when it needs them. A process that was forked and runs
    no program of its own yet shares the pages of its parent: only what it has more than its parent counts.
    """
    own, files = {}, {}
    total = 0
    for pid, parent in ((os.getpid(), None), *_descendants(os.getpid())):
        try:
            own[pid] = _private(pid)
            total += max(0, own[pid] - own.get(parent, 0)) if parent and _only_forked(pid) else own[pid]
            for entry in os.scandir(f"/proc/{pid}/fd"):
                if os.readlink(entry.path).startswith("/memfd:"):
                    found = entry.stat()
                    files[found.st_ino] = found.st_blocks * 512
        except (OSError, TypeError):  # it has ended, or is about to
            continue
    return total + sum(files.values())


class PeakMemory:
    """Watches `in_use` from a thread of its own; a context manager. `peak`: the most so far, in bytes."""

    def __init__(self):
        self.peak = in_use()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self.peak = max(self.peak, in_use())

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, in_use())


def _private(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^RssAnon:\s*(\d+) kB", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0  # one that has ended has no memory


def _only_forked(pid: int) -> bool:
    """Whether a process was forked and has not called exec since."""
    flags = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]
    return bool(int(flags) & PF_FORKNOEXEC)


def _descendants(pid: int) -> Iterator[tuple[int, int]]:
    """The processes that a process has started, and those that these have, each with the one that started it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:  # the process has ended
        return
    for task in tasks:
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in map(int, children):
            yield child, pid
            yield from _descendants(child)
