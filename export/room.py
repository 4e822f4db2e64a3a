"""Whether a disk has room for an export, from the sizes of the weights alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runner.common.errors import UserError
from ..runner.common.memory import as_text
from .contents.ms_files import AT_A_TIME, LARGE_WEIGHTS, LARGEST_WEIGHTS

# Beside a part's weights: graphs, sealed examples and the tensors that Lite lays out in its own way. With the shipped
# checkpoint that is 2.6 % of its 40 MB, and less of larger ones; graphs of a part are some megabytes until they are zipped.
MARGIN, GRAPHS = 0.1, 20_000_000


def check_room(folder: Path, weight_bytes: Mapping[str, int], written: int | None = None) -> None:
    """UserError that gives both figures if the file system of `folder` has less room than parts take that are to be made.

    weight_bytes: of each, float32. written: bytes of them that are written, where these are stored in another type, or are
    there already.
    """
    if not weight_bytes:
        return
    need, free = estimate(list(weight_bytes.values()), written), shutil.disk_usage(folder).free
    if free < need:
        raise UserError(f"{folder.parent} has {as_text(free)} of free disk and the export takes about {as_text(need)}: "
                        "make room, or choose an --output on another disk")


def estimate(weight_bytes: Sequence[int], written: int | None = None) -> int:
    """Bytes that an export has on disk at most: all parts, and the conversions of the largest."""
    total = sum(weight_bytes)
    return int(total * MARGIN) + (total if written is None else written) + GRAPHS + max(map(_conversions, weight_bytes))


def _conversions(weight_bytes: int) -> int:
    """A conversion has a copy of its graph's weights and makes a file with another; large copies are made one at a time."""
    copies = 1 if weight_bytes > LARGE_WEIGHTS else AT_A_TIME
    return (copies + AT_A_TIME) * min(weight_bytes, LARGEST_WEIGHTS)
