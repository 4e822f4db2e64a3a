"""What becomes of a bridge process's model where this process is forked."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_bridge import FakeBridge, left, numbers, right
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.engine.chain import Chain


@pytest.fixture
def fake(tmp_path):
    return FakeBridge(tmp_path)


def in_child(act):
    """What `act` says, a line, in a process forked from this one; it ends as one that calls sys.exit does."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        signal.alarm(20)  # it must not hang
        with contextlib.suppress(BaseException):
            os.write(writing, str(act()).encode())
        os.close(writing)
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "it hung"
    return text


def test_a_forked_process_may_not_use_the_model(fake):
    """And whatever it does, the parent goes on."""
    model = fake.load()

    def use():
        try:
            return model.run([numbers(1)])
        except EngineError as error:
            return error

    said = in_child(lambda: (model.usable, use(), model.close(), model._process._finalizer.alive, gc.collect()))
    assert said.startswith("(False, EngineError(") and said.endswith(f"None, False, {said.split()[-1]}")
    assert f"loaded in process {os.getpid()}, from which this process (" in said and "load it in this process" in said
    assert model.usable and right(model, 2)
    model.close()


def test_a_forked_process_holds_nothing_of_the_parents(fake):
    before = [link for _, link in left()[0]]
    model = fake.load()
    said = in_child(lambda: [os.readlink(f"/proc/self/fd/{name}") for name in sorted(os.listdir("/proc/self/fd"))
                             if os.path.lexists(f"/proc/self/fd/{name}")])
    assert said.count("socket:") == sum(link.startswith("socket:") for link in before)
    assert "kandinsky-mindir-log" not in said
    assert right(model, 1)
    model.close()


def test_a_lock_that_another_thread_held_at_the_fork(fake):
    """In the child that thread is not there to give it back."""
    model = fake.load("mute")
    chained = Chain([model], model.inputs, model.outputs)
    thread = threading.Thread(target=_run, args=(chained,))
    thread.start()
    time.sleep(0.2)
    for used in (model, chained):
        def use(used=used):
            used.close()
            try:
                used.run([numbers(1)])
            except EngineError as error:
                return error

        assert "was forked: load it in this process" in in_child(use)
    os.kill(model._process.pid, signal.SIGKILL)
    thread.join(20)
    chained.close()


def _run(model):
    with contextlib.suppress(EngineError):
        model.run([numbers(1)])


def test_a_forked_process_that_exits_leaves_the_model_alone(tmp_path):
    """With all that the interpreter does at its end, and without a warning."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2] / 'support')!r})\n"
        "import numpy as np\n"
        "from fake_bridge import FakeBridge\n"
        f"model = FakeBridge(Path({str(tmp_path)!r})).load()\n"
        "if not (child := os.fork()):\n"
        "    sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "x = np.arange(4, dtype=np.float32)\n"
        "print(np.array_equal(model.run([x])[0], x))\n"
    )
    result = subprocess.run([sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("True\n", "")
