"""A process that runs one model, and what is said to it.

Both sides speak in lines over one socket (native/bridge.cc says which). A request carries a number, and so does its answer.
What an exception cuts short is never continued: the next answer would be another request's. So the process ends with the
first request that does not end well, and its owner loads the model again.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import is_of_system
from ..common.locks import in_forked_child
from .interface import EngineError
from .lite_log import LiteLog

DEADLINE_VARIABLE = "KANDINSKY_MINDIR_DEADLINE"
DEADLINE = 3600.0  # seconds: a denoising step of the largest graph on one slow core takes minutes
SLICE = 1.0  # seconds of one look; if all is stopped for a while, as a container or a laptop is, one slice is lost, not more
LARGE_PAGES = "glibc.malloc.hugetlb=1"  # for packed weights: fewer page faults in a load, fewer address misses in a run
BYTES_RECEIVED = 1 << 16


class BridgeProcess:
    """The program `command`, ready to load its model.

    command: the program and its arguments. descriptors: what it inherits. name: of the graph, for messages. deadline:
    seconds that it may take for one answer. EngineError if it does not start.
    """

    def __init__(self, command: Sequence[str | Path], descriptors: Sequence[int], name: str, deadline: float):
        self._name, self._deadline = name, deadline
        self._owner = os.getpid()
        self._fault: str | None = None  # why it is not to be used any more
        self._requests, self._received = 0, b""
        self._log = LiteLog()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._log.file, pass_fds=descriptors,
                    env=_with_large_pages(self._log.environment()),
                )  # fmt: skip
            self._finalizer = weakref.finalize(self, _end, self._owner, self._process, self._socket, self._log)
            _living.add(self)
        except BaseException as error:
            _end(self._owner, self._process, self._socket, self._log)
            if is_of_system(error):
                raise EngineError(f"{name}: MindSpore Lite does not start: {error}") from error
            raise

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def owned(self) -> bool:
        """Whether the running process has started it. A process that was forked from that one has not."""
        return os.getpid() == self._owner

    @property
    def usable(self) -> bool:
        return self.owned and self._fault is None and self._finalizer.alive

    def check(self) -> None:
        """EngineError unless it can be used; RuntimeError if it was closed."""
        if not self.owned:
            raise EngineError(f"{self._name}: it was loaded in process {self._owner}, from which this process "
                              f"({os.getpid()}) was forked: load it in this process")
        if self._fault is not None:
            raise EngineError(self._fault)
        if not self._finalizer.alive:
            raise RuntimeError(f"{self._name}: the model is closed")

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """What is said to it within the block. An exception of any kind that ends the block ends the process too."""
        self.check()
        # An exception of a signal handler may come anywhere: until the block has ended well, the process is not usable.
        self._fault = f"{self._name}: a run of it has not ended: load it again"
        try:
            yield
        except BaseException as error:
            if isinstance(error, EngineError):
                self._fault = str(error)
            self.close()
            raise
        self._fault = None

    def ask_for_a_run(self) -> None:
        """One run over the shared memory, to its end. EngineError says why it failed."""
        self._log.clear()
        self._requests += 1
        try:
            self._socket.sendall(b"%d\n" % self._requests, socket.MSG_NOSIGNAL)
        except OSError as error:
            if not is_of_system(error):
                raise
            raise EngineError(f"{self._name}: {self._cause_of_death()}") from None
        answer, _, rest = self.line().partition(" ")
        number, _, text = rest.partition(" ")
        if number != str(self._requests) or answer not in ("done", "failed"):
            raise EngineError(f"{self._name}: MindSpore Lite's process answered {answer!r} to request {number!r}, and "
                              f"{self._requests} was asked: load it again")
        if answer == "failed":
            raise self._refusal(text)

    def line(self) -> str:
        """The next line that it says. EngineError, with Lite's own reason, if it is an error or there is none in time."""
        while b"\n" not in self._received:
            self._wait()
            try:
                received = self._socket.recv(BYTES_RECEIVED)
            except OSError as error:
                if not is_of_system(error):
                    raise
                received = b""
            if not self._finalizer.alive:  # a signal handler has closed it
                raise RuntimeError(f"{self._name}: the model is closed")
            if not received:
                raise EngineError(f"{self._name}: {self._cause_of_death()}")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        kind, _, text = line.decode(errors="replace").partition(" ")
        if kind == "error":
            raise self._refusal(text)
        return f"{kind} {text}"

    def close(self) -> None:
        """End it and free what belongs to it. In a process that was forked from its owner this does nothing."""
        arguments = self._owner, self._process, self._socket, self._log
        try:
            _end(*arguments)
        except BaseException:  # of a signal handler: nothing is left all the same
            _end(*arguments)
            raise
        self._finalizer.detach()

    def _wait(self) -> None:
        """Until it has said something, or has ended."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        left = self._deadline
        while left > 0:
            if poll.poll(min(left, SLICE) * 1000):
                return
            left -= SLICE
        raise EngineError(f"{self._name}: MindSpore Lite has not answered for {self._deadline:g} s and was ended: if it "
                          f"only needs longer, set {DEADLINE_VARIABLE} to more seconds")

    def _refusal(self, text: str) -> EngineError:
        reason = self._log.reason() or text
        if "libascend_kernel_plugin" in reason:
            reason = ("its Ascend plugin does not open: that takes an Ascend machine with the CANN toolkit, and "
                      f"CANN's set_env.sh in the environment ({reason})")
        return EngineError(f"{self._name}: MindSpore Lite cannot use it: {reason}")

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None  # as it is once __init__ has ended
        return self._process

    def _cause_of_death(self) -> str:
        return cause_of_death(self._started.wait(), self._log)

    def _forget(self) -> None:
        """In a forked process: let go of the parent's process, which neither this one nor its end is to touch."""
        self._finalizer.detach()
        self._socket.close()
        self._log.close()
        self._started.returncode = 0  # subprocess would warn of a process that was left running


def deadline(seconds: float | None = None) -> float:
    """`seconds`, or what KANDINSKY_MINDIR_DEADLINE says, or an hour. EngineError unless it is a number above 0."""
    given = os.environ.get(DEADLINE_VARIABLE) or DEADLINE if seconds is None else seconds
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = 0.0
    if not found > 0:
        name = DEADLINE_VARIABLE if seconds is None else "deadline"
        raise EngineError(f"{name} is {given!r}: it must be a number of seconds above 0")
    return found


def cause_of_death(status: int, log: LiteLog) -> str:
    """What a program that runs Lite died of, with its last words."""
    if status == -signal.SIGKILL:
        return "MindSpore Lite was killed, as the system does when memory runs out"
    return f"MindSpore Lite ended with {f'signal {-status}' if status < 0 else f'status {status}'}: {log.last_line()}"


def _end(owner: int, process: subprocess.Popen[bytes] | None, connection: socket.socket, log: LiteLog) -> None:
    """May be called again where an exception has cut it short. Closing the connection ends the program, too."""
    if os.getpid() == owner:
        if process is not None:
            process.kill()  # it holds no state worth a farewell
        connection.close()
        if process is not None:
            process.wait()
        log.close()


def _with_large_pages(environment: dict[str, str]) -> dict[str, str]:
    tunables = filter(None, [LARGE_PAGES, environment.get("GLIBC_TUNABLES")])  # the user's come last, and win
    return {**environment, "GLIBC_TUNABLES": ":".join(tunables)}


def _forget_all() -> None:
    for process in list(_living):
        process._forget()


_living: weakref.WeakSet[BridgeProcess] = weakref.WeakSet()
in_forked_child(_forget_all)
