"""Fixtures that several test files share, and two processes for a run of all tests."""

import gc
import os
import shutil
import signal
import sys
from contextlib import redirect_stderr
from io import StringIO

import kandinsky_mindir.export  # noqa: F401  (before MindSpore, which reads what its __init__ sets)

# A shell lets what it starts in the background ignore Ctrl-C, and nohup the end of its terminal; so would every program that
# a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

import checkpoints
import numpy as np
import pytest
import torch
from kandinsky_mindir.runner import engine as engines
from kandinsky_mindir.runner.engine.bridge import BridgeEngine
from kept import Kept, kept_conversions


def unset_number_of_threads():
    """MindSpore sets OMP_NUM_THREADS behind Python's back, for all that this process starts, when it is imported and whenever it
    has run a graph."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.unsetenv("OMP_NUM_THREADS")


unset_number_of_threads()  # before this process starts those that share the tests
# Its threads wait for each other by counting: where another process takes a processor, a small network takes fifty times as long.
torch.set_num_threads(1)

MOST_WORKERS = 2  # compiling a graph takes up to 2 GB, and Lite's own threads are not counted


def pytest_xdist_auto_num_workers(config):
    """All tests run in two processes; chosen files or tests in this one."""
    everything = list(config.args) == config.getini("testpaths")
    return min(MOST_WORKERS, len(os.sched_getaffinity(0))) if everything else 0


# Slow tests of minutes each: one that begins last keeps one process waiting for the other.
LONGEST = ("test_snippets.py::test_pages[text-to-image]", "test_board.py::test_the_real_program", "test_fuzz_native.py",
           "test_readme.py::test_commands_on_a_bundle_of_ones_own", "test_demo.py::test_demo", "test_sizes.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """With -m slow, the longest come first in each half of the tests, as each process begins with one."""
    if _slow(config):
        longest = [item for item in items if any(name in item.nodeid for name in LONGEST)]
        rest = [item for item in items if item not in longest]
        first = len(items) // MOST_WORKERS - len(longest[::2])
        items[:] = longest[::2] + rest[:first] + longest[1::2] + rest[first:]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """All that is there before the first test stays: nobody looks through it for cycles, as MindSpore asks for with each graph."""
    gc.collect()
    gc.freeze()


def _slow(config):
    return config.option.markexpr == "slow"


@pytest.fixture(scope="session")
def kept(pytestconfig):
    """Folders that are kept between runs, in pytest's cache: --cache-clear makes all of them anew."""
    return Kept(pytestconfig.cache.mkdir("kept"))


@pytest.fixture(scope="session", autouse=True)
def conversions(kept):
    """What Lite's converter makes of a graph of an export is kept, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BridgeEngine, "convert", kept_conversions(BridgeEngine.convert, kept.folder / "conversions"))
        yield


@pytest.fixture(scope="session")
def engine(kept):
    """MindSpore Lite, installed first where it is not."""
    kept.get("runtime", lambda _: engines.create())
    return engines.create()


@pytest.fixture(scope="session")
def bundles(kept, engine, tmp_path_factory, pytestconfig):
    """A function from a name in checkpoints.SIZES to its exported bundle, a copy for this run, with the folders of its checkpoint
    (prior, decoder, inpaint, controlnet) beside it."""
    from kandinsky_mindir.export.bundle import export_bundle

    copies, waiting = {}, []  # what many tests need
    if "PYTEST_XDIST_WORKER" in os.environ:
        waiting = [*(("mixed", "wide", "micro-family") if _slow(pytestconfig) else ()), "narrow", "micro", "family"]

    def export(name, wait):
        def make(folder):
            with redirect_stderr(StringIO()):  # progress of libraries, which is not what the test at hand says
                prior, decoder = (checkpoints.save_family if name in checkpoints.FAMILIES else checkpoints.save)(name, folder)
                export_bundle(prior, decoder, folder / "bundle", checkpoints.SIZES[name], shallow=name in checkpoints.SHALLOW,
                              progress=False)

        return kept.get(name, make, wait)

    def bundle(name):
        if name not in copies:
            while (folder := export(name, wait=not waiting)) is None:
                export(waiting.pop(), wait=False)  # rather than watch the other process export, take another
            copies[name] = shutil.copytree(folder, tmp_path_factory.mktemp(name) / name) / "bundle"
        return copies[name]

    return bundle


@pytest.fixture(autouse=True)
def no_number_of_threads():
    unset_number_of_threads()


@pytest.fixture
def no_leftovers():
    """Nothing of tests that failed: the traceback of the last one, and cycles with those of others, keep their pipelines,
    whose models and budgets count for all pipelines of the process."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    gc.collect()


class Tape:
    """A noise source that remembers the shapes it was asked for."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.shapes = []

    def standard_normal(self, size):
        self.shapes.append(tuple(size))
        return self.random.standard_normal(size)


@pytest.fixture
def tape():
    return Tape


@pytest.fixture
def reference_noise(monkeypatch):
    """A function that makes diffusers draw all its noise from a Tape."""
    import torch

    def use(tape):
        def randn_tensor(shape, *_, **__):
            return torch.from_numpy(tape.standard_normal(tuple(shape)).astype(np.float32))

        for name, module in list(sys.modules.items()):
            if name.startswith("diffusers.") and "randn_tensor" in vars(module):
                monkeypatch.setattr(module, "randn_tensor", randn_tensor)

    return use
