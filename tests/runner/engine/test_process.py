"""What is said to a bridge process: no answer is taken for another's, and nothing is left, whatever exception comes when."""

import functools
import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_bridge import FakeBridge, left, numbers, right
from kandinsky_mindir.runner.engine import EngineError, bridge, chain, lite_log, process
from kandinsky_mindir.runner.engine.chain import Chain

FILES = {Path(module.__file__).resolve() for module in (bridge, process, lite_log)}


class TooLate(Exception):
    """What an alarm's handler raises."""


@pytest.fixture(autouse=True, scope="module")
def _quick_collections():
    """What other tests have imported is not looked through each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def fake(tmp_path):
    return FakeBridge(tmp_path)


@functools.cache
def resolved(name):
    return Path(name).resolve()


def interrupted(act, number, files=FILES):
    """Calls `act`; TooLate comes at its line of that number. Whether it came, and what `act` returned."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if resolved(frame.f_code.co_filename) not in files:
            return None
        if event == "line":
            if count == number:
                count += 1
                raise TooLate
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return False, act()
    except TooLate:
        return True, None
    finally:
        sys.settrace(before)


def moments(act):
    """Numbers of lines until `act(number)`, which says whether the exception came, says no. At least twenty."""
    number = 0
    while act(number):
        number += 1
    assert number >= 20
    return number


def test_an_exception_at_any_line_of_a_run(fake):
    """Whatever it cuts short, the next run is right, or an error; and there is nothing left after close."""
    outcomes = set()

    def once(number):
        before = left()
        model = fake.load()
        assert right(model, 1)
        came, _ = interrupted(lambda: model.run([numbers(2)]), number)
        outcomes.add(model.usable)
        if model.usable:
            assert right(model, 3)
        else:
            with pytest.raises(EngineError, match="graph.ms: a run of it has not ended: load it again"):
                model.run([numbers(3)])
        model.close()
        assert left() == before
        return came

    moments(once)
    assert outcomes == {True, False}


def test_an_exception_at_any_line_of_a_load(fake):
    def once(number):
        before = left()
        came, model = interrupted(fake.load, number)
        if not came:
            assert right(model, 1)
            model.close()
        assert left() == before
        return came

    moments(once)


def test_an_exception_at_any_line_of_close(fake):
    """It may be called again; and whoever does not loses nothing either."""
    def once(number, again):
        before = left()
        model = fake.load()
        came, _ = interrupted(model.close, number)
        if again:
            model.close()
            with pytest.raises(RuntimeError, match="closed"):
                model.run([numbers(1)])
        del model
        assert left() == before
        return came

    for again in (True, False):
        number = 0
        while once(number, again):
            number += 1
        assert number >= 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError, TooLate])
@pytest.mark.parametrize("habit", ["dribbles", ""])
def test_signals_at_many_moments(fake, error, habit):
    """Real ones, also while half an answer has come: what is returned is right."""
    armed = False

    def strike(*_):
        if armed:
            raise error

    before = left()
    previous = signal.signal(signal.SIGALRM, strike)
    model, struck = fake.load(habit), 0
    try:
        for seed in range(30):
            if not model.usable:
                model.close()
                model = fake.load(habit)
            try:
                armed = True
                try:
                    signal.setitimer(signal.ITIMER_REAL, 2e-5 * (seed + 1))
                    assert right(model, seed)
                finally:
                    armed = False
            except error:
                struck += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            if model.usable:
                assert right(model, seed + 100)
    finally:
        signal.signal(signal.SIGALRM, previous)
        model.close()
    assert struck and left() == before


@pytest.mark.parametrize("habits, message", [
    (["lags"], "answered 'done' to request '0', and 1 was asked: load it again"),
    (["fails"], "MindSpore Lite cannot use it: no memory"),
    (["dies"], "MindSpore Lite ended with status 3"),
])  # fmt: skip
def test_an_answer_that_is_none(fake, habits, message):
    """The model is not used again: it says the same."""
    before = left()
    model = fake.load(*habits)
    for _ in range(2):
        with pytest.raises(EngineError, match=f"graph.ms: .*{message}"):
            model.run([numbers(1)])
        assert not model.usable
    model.close()
    assert left() == before


def test_an_answer_too_many_is_not_the_next_ones(fake):
    model = fake.load("repeats")
    assert right(model, 1)
    with pytest.raises(EngineError, match="answered 'done' to request '1', and 2 was asked"):
        model.run([numbers(2)])
    model.close()


@pytest.mark.parametrize("habit, message", [
    ("refuses", "MindSpore Lite cannot use it: it is no graph"),
    ("dies_loading", "MindSpore Lite ended with status 3: my last words"),
])  # fmt: skip
def test_a_load_that_fails_leaves_nothing(fake, habit, message):
    before = left()
    try:
        fake.load(habit)
    except EngineError as error:
        kept = error  # with its traceback, and what that holds
        assert message in str(kept)
        assert left()[1:] == before[1:]
        del kept
    assert left() == before


@pytest.mark.parametrize("habit", ["mute", "never_ready"])
def test_a_deadline_names_the_graph(tmp_path, habit):
    before, started = left(), time.monotonic()
    fake = FakeBridge(tmp_path, deadline=0.5)
    with pytest.raises(EngineError, match=r"graph.ms: MindSpore Lite has not answered for 0.5 s .* KANDINSKY_MINDIR_DEADLINE"):
        fake.load(habit).run([numbers(1)])
    assert 0.5 <= time.monotonic() - started < 30
    assert left() == before


@pytest.mark.parametrize("given, seconds", [(None, 3600), ("90", 90), ("1.5", 1.5), ("", 3600), ("inf", float("inf"))])
def test_the_deadline(monkeypatch, given, seconds):
    monkeypatch.delenv(process.DEADLINE_VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(process.DEADLINE_VARIABLE, given)
    assert process.deadline() == seconds and process.deadline(7) == 7


@pytest.mark.parametrize("given", ["0", "-1", "nan", "soon"])
def test_bad_deadlines(monkeypatch, given):
    monkeypatch.setenv(process.DEADLINE_VARIABLE, given)
    with pytest.raises(EngineError, match=f"KANDINSKY_MINDIR_DEADLINE is '{given}': it must be a number of seconds above 0"):
        process.deadline()


def test_a_signal_handler_may_close_the_model_that_it_interrupts(fake):
    before = left()
    model = fake.load("mute")
    previous = signal.signal(signal.SIGALRM, lambda *_: model.close())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(RuntimeError, match="the model is closed"):
            model.run([numbers(1)])
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert left() == before


def test_a_signal_handler_may_not_run_the_model_that_it_interrupts(fake):
    """Its numbers would go where the others' are. What it interrupted goes on."""
    model, said = fake.load("slow"), []

    def strike(*_):
        try:
            said.append(model.run([numbers(9)]))
        except EngineError as error:
            said.append(str(error))

    previous = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert right(model, 1)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert said == [f"{fake.folder / 'graph.ms'}: a run of it has not ended: load it again"]
    assert right(model, 2)
    model.close()


def test_a_broken_pipe_is_no_signal(tmp_path):
    """A program that has SIGPIPE end it, as command line tools do, gets an error and not that."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2] / 'support')!r})\n"
        "import numpy as np\n"
        "from fake_bridge import FakeBridge\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        f"model = FakeBridge(Path({str(tmp_path)!r})).load()\n"
        "os.kill(model._process.pid, 9)\n"
        "os.waitid(os.P_PID, model._process.pid, os.WEXITED | os.WNOWAIT)\n"
        "try:\n"
        "    model.run([np.zeros(4, np.float32)])\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0 and "MindSpore Lite was killed" in result.stdout, result.stderr


def test_an_exception_between_the_pieces_of_a_chain(tmp_path):
    """At any line: the next run is right, or the chain is not usable; closing it closes every piece."""
    fakes = [FakeBridge(tmp_path / str(number)) for number in range(3) if not (tmp_path / str(number)).mkdir()]
    file = Path(chain.__file__).resolve()

    def once(number):
        before = left()
        models = [fake.load() for fake in fakes]
        for i, model in enumerate(models):  # x -> a -> b -> y
            model.inputs, model.outputs = ((spec._replace(name="xaby"[i + j]),) for j, (spec,) in
                                           enumerate((model.inputs, model.outputs)))
        with Chain(models, models[0].inputs, models[-1].outputs) as whole:
            came, _ = interrupted(lambda: whole.run([numbers(1)]), number, {file})
            assert right(whole, 2) and right(whole, 3)
        assert not any(model.usable for model in models) and left() == before
        return came

    number = 0
    while once(number):
        number += 1
    assert number >= 8


def test_an_exception_while_a_chain_closes(tmp_path):
    class Stubborn:
        usable, closed, inputs, outputs = True, False, (), ()

        def close(self):
            self.closed = True
            raise TooLate

    pieces = [Stubborn(), Stubborn(), Stubborn()]
    with pytest.raises(TooLate):
        Chain(pieces, [], []).close()
    assert all(piece.closed for piece in pieces)
