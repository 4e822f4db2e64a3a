"""A finished folder takes its place, and the place of an old one, at once."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path


def publish(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`. An old one is there until then: the two change places."""
    if target.exists():
        _exchange(staging, target)
        remove(staging)
    else:
        staging.rename(target)


def _exchange(one: Path, other: Path) -> None:
    """Both names change places at once; where the system cannot do that, one after the other."""
    current, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fs.h
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc 2.28
    if not rename or rename(current, os.fsencode(one), current, os.fsencode(other), exchange) != 0:
        aside = one.with_name(f"{one.name}.old")
        remove(aside)
        other.rename(aside)
        try:
            one.rename(other)
        except BaseException:
            aside.rename(other)
            raise
        aside.rename(one)


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
