"""Work in a process of its own, which takes its memory with it when it ends; and Ctrl-C where it must wait."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from ..runner.common.errors import UserError

T = TypeVar("T")

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
ANOTHER_SIGNAL = 1.0  # seconds after an interrupt that may have come before the process was ready for it


class Killed(UserError):
    """A process ended without a word: killed from outside, for want of memory most of all."""


def isolated(steps: Generator[T, None, None]) -> Iterator[T]:
    """Yield what `steps` yields while it runs in a process forked from this one; what it raises is raised here.

    MindSpore keeps a part of all that it has compiled until its process ends. The values must be picklable, `steps`
    need not be. The process never outlives this one; when this iterator ends early it is interrupted, as by Ctrl-C.
    Killed: if something ended it.
    """
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(steps, sender, os.getpid()))
    try:
        with interrupt_after():
            process.start()
        sender.close()
        with receiver:
            yield from _messages(receiver)
        process.join()
        if process.exitcode:
            ended = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"status {process.exitcode}"
            raise Killed(f"a process of the export ended with {ended}: is there enough memory?")
    finally:
        with interrupt_after():
            _end(process)


@contextmanager
def interrupt_after() -> Iterator[None]:
    """Ctrl-C waits for the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    received = []
    previous = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received:
            raise KeyboardInterrupt


def _messages(receiver: Connection) -> Iterator:
    while True:
        try:
            message = receiver.recv()
        except EOFError:
            return
        if isinstance(message, BaseException):
            raise message
        yield message


def _end(process: BaseProcess) -> None:
    while process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGINT)
        process.join(ANOTHER_SIGNAL)


def _run(steps: Generator, sender: Connection, parent: int) -> None:
    """What the process does. Nothing may leave it: multiprocessing would print a traceback."""
    try:
        try:
            signal.signal(signal.SIGINT, _interrupt_once)
            gc.freeze()  # what was there before: nobody looks through it for cycles here, where MindSpore asks for that
            getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() == parent:  # else it has died before that
                with closing(steps):  # an interrupt may come between two steps
                    for step in steps:
                        sender.send(step)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent interrupts once it has the error: it may be early
    except BaseException as error:
        with suppress(OSError):  # nobody reads any more
            sender.send(_picklable(error))


def _picklable(error: BaseException) -> BaseException:
    """The error, or one that says the same, if pickle cannot bring it over."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # of any class: that of the error decides how it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")


def _interrupt_once(*_) -> None:
    """A terminal's Ctrl-C comes to all processes, and to this one again from its parent, while it tidies up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
