"""What a forked process does first: it drops what belongs to its parent."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_forked_child(act: Callable[[], None]) -> None:
    """Have `act` called in every process that is forked from this one, before anything else runs there.

    Only the thread that forked goes on in the child. A lock that another thread held stays locked there for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=act)
