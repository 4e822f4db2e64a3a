"""Work in a process of its own (export/isolation.py): what it yields, how it fails, and that it does not outlive us."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kandinsky_mindir.export.isolation import Killed, interrupt_after, isolated
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.common.memory import in_use

MEGABYTES_100 = 100_000_000
PATIENCE = 60  # seconds for what should happen at once, on a machine that may be busy


PARENT = """
import pathlib
from test_isolation import endless, isolated
for pid in isolated(endless(pathlib.Path())):
    print(pid, flush=True)
"""


def ended(pid):
    """Whether a process ends: a zombie counts, as the system may not have reaped it yet."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def wait_for(path):
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def endless(folder):
    """Yields its process; leaves the file `tidy` when it is interrupted."""
    try:
        yield os.getpid()
        while True:
            time.sleep(0.01)
    finally:
        time.sleep(1.5)  # meanwhile it is interrupted again
        (folder / "tidy").touch()


def test_values_come_over_and_memory_does_not():
    def work():
        yield {"pid": os.getpid(), "used": in_use()}
        kept.append(bytes(MEGABYTES_100).replace(b"\0", b"1"))
        yield {"used": in_use()}

    kept, before = [], in_use()
    first, last = isolated(work())
    assert first["pid"] != os.getpid() and ended(first["pid"])
    assert last["used"] - first["used"] >= MEGABYTES_100 > in_use() - before and kept == []


def test_memory_of_what_it_starts_counts(tmp_path):
    measured, again = tmp_path / "measured", tmp_path / "again"

    def work():
        yield
        wait_for(measured)
        memory = f"import sys; x = b'1' * {MEGABYTES_100}; print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", memory], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            yield
            wait_for(again)
            process.stdin.close()

    steps = isolated(work())
    next(steps)
    before = in_use()
    measured.touch()
    next(steps)
    assert in_use() - before > MEGABYTES_100
    again.touch()
    assert list(steps) == []


@pytest.mark.parametrize("error", [UserError("a tensor is missing"), OSError(28, "No space", "file"), KeyboardInterrupt()])
def test_an_error_is_raised_here(error):
    def work():
        yield 1
        raise error

    found = []
    with pytest.raises(type(error)) as raised:
        found.extend(isolated(work()))
    assert raised.value.args == error.args and str(raised.value) == str(error)


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


@pytest.mark.parametrize("error", [UserError("x" * 100_000), Unpicklable("not", "portable"), KeyboardInterrupt()])
def test_the_process_prints_nothing_of_an_error(error, capfd):
    """The parent interrupts it as soon as it has the error, which may be before the process has gone on."""
    def work():
        yield 1
        raise error

    for _ in range(20):
        with pytest.raises((type(error), RuntimeError), match=f"{error}$"):
            list(isolated(work()))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("end, how", [
    (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"), (lambda: os._exit(3), "status 3"),
])  # fmt: skip
def test_a_process_that_is_killed_is_an_error(end, how):
    def work():
        yield 1
        end()

    with pytest.raises(Killed, match=f"^a process of the export ended with {how}: is there enough memory"):
        list(isolated(work()))


def test_it_is_interrupted_when_nobody_waits_for_it(tmp_path):
    steps = isolated(endless(tmp_path))
    pid = next(steps)
    steps.close()
    assert ended(pid) and (tmp_path / "tidy").exists()


@pytest.mark.parametrize("everyone", [False, True])
def test_ctrl_c(everyone, tmp_path):
    """A terminal's comes to all processes of the group, that of `kill -INT` to the parent alone."""
    def press():
        if everyone:
            os.kill(pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    steps = isolated(endless(tmp_path))
    pid = next(steps)
    timer = threading.Timer(0.2, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    timer.join()
    assert ended(pid) and (tmp_path / "tidy").exists()


def test_it_ends_when_its_parent_is_killed(tmp_path):
    command = [sys.executable, "-c", PARENT]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
    assert ended(pid) and not (tmp_path / "tidy").exists()


def test_an_interrupt_waits_for_the_end_of_the_block():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with interrupt_after():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")
        reached.append("beyond")
    assert reached == ["the end"]
