"""Signals that end the command as Ctrl-C does: what it has begun is tidied up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end. What tidies up after Ctrl-C tidies up after it."""

    status = 130  # exit status of a program that a signal ended: 128 + its number


class Terminated(Stopped):
    """SIGTERM: kill, systemd, a container that stops."""

    status = 143


class HungUp(Stopped):
    """SIGHUP: the terminal is gone."""

    status = 129


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Inside the block, SIGTERM and SIGHUP raise Terminated and HungUp in the main thread of this process.

    A signal that is ignored (nohup) stays ignored. Processes that are forked meanwhile end as by default.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, before = os.getpid(), {}
    kinds = {getattr(signal, name): kind for name, kind in (("SIGTERM", Terminated), ("SIGHUP", HungUp)) if hasattr(signal, name)}

    def stop(number, _):
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for kind in kinds:  # a second one must not break the tidying up
            signal.signal(kind, signal.SIG_IGN)
        raise kinds[number]

    for number in kinds:
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
