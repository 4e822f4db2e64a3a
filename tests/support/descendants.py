"""Processes that a test's processes have started."""

import contextlib
import time
from pathlib import Path

PATIENCE = 60  # seconds, on a machine that may be busy, for what takes milliseconds


def children(pid):
    """The processes that a process has started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def ends(pid):
    """Whether that process, no child of this one, ends."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.01)
                continue
        return True
    return False
