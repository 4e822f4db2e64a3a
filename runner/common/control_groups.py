"""What the control groups that this process is in leave to it: memory and processors.

Containers, systemd's services and batch systems limit groups of processes. A group lies within others, any of which may
have a limit: the smallest holds. Linux has two versions of them, and a machine may use both at once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import UserError

ROOT = Path("/")
NO_LIMIT = "max"  # as version 2 says it; version 1 gives a number that no machine reaches, or -1


class Group(NamedTuple):
    """A group that limits this process: the version of control groups, its folder, and whether it is the innermost."""

    version: int
    folder: Path
    innermost: bool

    def read(self, name: str) -> str | None:
        """A file of the group; None if it has none: the outermost group lacks most, and so does one out of sight."""
        try:
            return (self.folder / name).read_text().strip()
        except (OSError, ValueError):
            return None

    def number(self, name: str) -> int | None:
        """The number in a file; None if there is none."""
        text = self.read(name)
        return int(text) if text and re.fullmatch(r"-?\d+", text) else None


def memory_left() -> int | None:
    """Bytes that this process may still take; None if no group has a limit.

    Pages of files that a group has read count as its own, but the system takes them back when it needs them, as
    MemAvailable of the whole machine assumes, too. Files in memory are no such pages.
    """
    left = [found for found in map(_left, _groups("memory")) if found is not None]
    return max(0, min(left)) if left else None


def processors() -> float | None:
    """How many processors' time this process may use; None if no group has a limit."""
    return min(filter(None, map(_quota, _groups("cpu"))), default=None)


def thread_count(threads: int | None) -> int:
    """`threads`, or one for each CPU that this process may use.

    That is how many CPUs it may run on, how much of their time its control groups leave it, rounded up, and
    $OMP_NUM_THREADS where that is set: the least of them.
    """
    if threads is None:
        quota = processors()
        named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # may be a list, for nested regions
        limits = [None if quota is None else math.ceil(quota), int(named) if re.fullmatch(r"[0-9]{1,9}", named) else None]
        threads = min([len(os.sched_getaffinity(0)), *filter(None, limits)])
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    return threads


def _left(group: Group) -> int | None:
    if group.version == 2:
        limits = [group.number("memory.max"), group.number("memory.high")]  # above the second it is slowed down
        used, prefix = group.number("memory.current"), ""
    else:
        if not group.innermost and group.number("memory.use_hierarchy") == 0:  # it limits its own processes alone
            return None
        limits, used, prefix = [group.number("memory.limit_in_bytes")], group.number("memory.usage_in_bytes"), "total_"
    known = [limit for limit in limits if limit is not None and limit >= 0]
    if not known or used is None:
        return None
    counts = dict(re.findall(r"^(\w+) (\d+)$", group.read("memory.stat") or "", re.MULTILINE))
    files = sum(int(counts.get(f"{prefix}{kind}", 0)) for kind in ("inactive_file", "active_file"))
    return min(known) - max(0, used - files)


def _quota(group: Group) -> float | None:
    if group.version == 2:
        quota, _, period = (group.read("cpu.max") or NO_LIMIT).partition(" ")
    else:
        quota, period = (str(group.number(f"cpu.cfs_{name}_us") or "") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _groups(controller: str) -> Iterator[Group]:
    """The groups that limit this process by `controller` ("memory", "cpu"), from the innermost outwards."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
        mounts = (ROOT / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        number, controllers, path = line.split(":", 2)
        version = 2 if number == "0" and not controllers else 1
        if version == 2 or controller in controllers.split(","):
            for root, point in _mounts(mounts, version, controller):
                yield from _up(version, _below(path, root), point)


def _mounts(lines: list[str], version: int, controller: str) -> Iterator[tuple[str, Path]]:
    """Where groups can be seen: the outermost one that can be seen there, and the folder. (proc_pid_mountinfo(5))"""
    for line in lines:
        mount, _, rest = line.partition(" - ")
        kind, _, options = (rest.split(" ", 2) + ["", "", ""])[:3]
        if kind == ("cgroup2" if version == 2 else "cgroup") and (version == 2 or controller in options.split(",")):
            root, point = (_unescaped(field) for field in mount.split(" ")[3:5])
            yield root, ROOT / point.lstrip("/")


def _below(path: str, root: str) -> PurePosixPath:
    """A group's path below `root`; of a group that does not lie there, as containers may see it, `root` itself."""
    try:
        found = PurePosixPath(path).relative_to(root)
    except ValueError:
        return PurePosixPath()
    return PurePosixPath() if ".." in found.parts else found


def _up(version: int, path: PurePosixPath, point: Path) -> Iterator[Group]:
    for level in (path, *path.parents):
        yield Group(version, point / level, level == path)


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
