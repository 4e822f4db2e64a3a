"""How much memory this process and the processes that run its models have used."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def peak_memory() -> int:
    """The largest resident size of this process so far plus those of its children, in bytes.

    A sum of peaks, which may lie apart in time: never less than what was used at any moment. Of children that have
    ended only the largest is counted, since models that are freed make room for the next.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    running = [_peak(pid) for pid in _children()]
    return _peak(os.getpid()) + max(ended, sum(running))


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # it has ended meanwhile
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024
