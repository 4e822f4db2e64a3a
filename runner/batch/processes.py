"""A crew on this machine: a process for each painter."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from tqdm import tqdm

from ..common.errors import UserError
from .crew import Outcome
from .painter import Answer, Order, Painter, Setting
from .rows import Job

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MOST_FALSE_STARTS = 3  # painters that die, one after another, before any of them works

_spawn = multiprocessing.get_context("spawn")  # a forked process would have the driver's threads' locks and open files


class Processes:
    """`workers` painters. See crew.Crew."""

    ships = False

    def __init__(self, setting: Setting, workers: int):
        self._setting, self._false_starts, self._said = setting, 0, set[str]()
        self._hands: list[_Hand] = []
        try:
            for number in range(workers):
                self._hands.append(_Hand(setting, str(number + 1)))
        except BaseException:
            self.close()
            raise

    @property
    def idle(self) -> int:
        return sum(hand.ready and hand.job is None for hand in self._hands)

    @property
    def busy(self) -> int:
        return sum(hand.job is not None for hand in self._hands)

    def give(self, job: Job, order: Order) -> None:
        hand = next(hand for hand in self._hands if hand.ready and hand.job is None)
        hand.job = job
        with suppress(OSError):  # it is dead: `wait` sees that
            hand.connection.send(order)

    def wait(self, seconds: float) -> list[Outcome]:
        found = []
        by_connection = {hand.connection: hand for hand in self._hands}
        for connection in wait(list(by_connection), seconds):
            hand = by_connection[connection]  # type: ignore[index]
            try:
                said = hand.connection.recv()
            except (EOFError, OSError):
                found += self._replace(hand)
                continue
            if isinstance(said, Answer):
                assert hand.job is not None
                found.append(Outcome(hand.job, said, hand.name))
                hand.job = None
            elif isinstance(said, str):
                raise UserError(said)
            else:
                hand.ready, self._false_starts = True, 0
                self._say(said)
        return found

    def close(self) -> None:
        hands, self._hands = self._hands, []
        for hand in hands:
            hand.process.kill()  # its models end with it
        for hand in hands:
            hand.process.join()
            hand.connection.close()

    def _replace(self, hand: _Hand) -> list[Outcome]:
        """Another painter in the place of one that has died."""
        hand.process.join()
        hand.connection.close()
        if not hand.ready:
            self._false_starts += 1
            if self._false_starts >= MOST_FALSE_STARTS:
                raise UserError(f"the process that makes pictures dies when it starts (status {hand.process.exitcode}): "
                                "give it more memory, or choose fewer --workers")
        self._hands[self._hands.index(hand)] = _Hand(self._setting, hand.name)
        return [] if hand.job is None else [Outcome(hand.job, None, hand.name)]

    def _say(self, remarks: tuple[str, ...]) -> None:
        for remark in remarks:
            if remark not in self._said:  # all painters say the same
                self._said.add(remark)
                warnings.warn(remark, stacklevel=2)


class _Hand:
    """A process, and what it does. ready: whether its bundle is open."""

    def __init__(self, setting: Setting, name: str):
        self.name, self.ready = name, False
        self.job: Job | None = None
        self.connection, theirs = _spawn.Pipe()
        self.process = _spawn.Process(target=work, args=(theirs, setting, os.getpid()), name=f"painter {name}", daemon=True)
        with theirs:
            self.process.start()


def work(connection: Connection, setting: Setting, parent: int) -> None:
    """The life of a process: open the bundle, then orders until the connection ends. It dies with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    tqdm.set_lock(threading.RLock())  # its own, among processes, is left over when one is killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal: the parent ends this one
    try:
        painter = Painter(setting)
    except UserError as error:
        connection.send(str(error))
        return
    connection.send(tuple(painter.remarks))
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return
        connection.send(painter.paint(order))
