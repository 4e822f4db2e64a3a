"""A program in the bridge's place: it answers as bridge.cc says, or as the graph's file tells it to."""

import gc
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from kandinsky_mindir.runner.engine.bridge import BridgeModel

# One input and one output of four numbers; the output is the input. The graph's file holds the names of habits.
SOURCE = r"""#!{python} -ISE
import mmap, os, sys, time
habits = open(sys.argv[1]).read().split()
memory = int(sys.argv[8])
os.ftruncate(memory, 128)
shared = mmap.mmap(memory, 128)

def say(text):
    for part in text if "dribbles" in habits else [text]:
        os.write(1, part.encode())

if "never_ready" in habits:
    time.sleep(60)
if "refuses" in habits:
    say("error it is no graph\n")
    sys.exit(1)
if "dies_loading" in habits:
    os.write(2, b"my last words\n")
    os._exit(3)
say("input 43 0 1 4 x\noutput 43 64 1 4 y\nready\n")
for line in sys.stdin:
    number = int(line)
    if "mute" in habits:
        time.sleep(60)
    if "slow" in habits:
        time.sleep(0.3)
    if "dies" in habits:
        os._exit(3)
    if "fails" in habits:
        say(f"failed {number} no memory\n")
        continue
    shared[64:80] = shared[:16]
    say(f"done {number - 1 if 'lags' in habits else number}\n")
    if "repeats" in habits:
        say(f"done {number}\n")
"""


class FakeBridge:
    """Loads models of the program: an engine as BridgeModel needs it. folder: for its files."""

    def __init__(self, folder: Path, deadline: float = 60):
        self.folder, self.deadline, self.precision, self.kernels = folder, deadline, "float32", "lite"
        program = folder / "bridge"
        program.write_text(SOURCE.replace("{python}", sys.executable))
        program.chmod(0o755)
        self.runtime = SimpleNamespace(bridge=program)

    def load(self, *habits: str) -> BridgeModel:
        graph = self.folder / "graph.ms"
        graph.write_text(" ".join(habits))
        return BridgeModel(self, graph, "cpu", 0, 1)


def numbers(seed):
    """An input of the graph."""
    return np.random.default_rng(seed).standard_normal(4).astype(np.float32)


def right(model, seed):
    """Whether a model answers what it was asked."""
    return np.array_equal(model.run([numbers(seed)])[0], numbers(seed))


def left():
    """The descriptors, child processes and threads of this process."""
    gc.collect()
    children = [int(word) for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split()]
    descriptors = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                   if os.path.lexists(f"/proc/self/fd/{name}")}
    return sorted(descriptors.items()), children, threading.active_count()
