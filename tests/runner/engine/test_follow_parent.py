"""Programs of the engine end with their parent (runner/engine/native/follow_parent.h), and print into no other file."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small_graph
from descendants import PATIENCE, ends
from kandinsky_mindir.runner.engine.compiler import SOURCES, find_compiler
from small_graph import expected, make_inputs

# Prints its number, and then runs for ever, as a graph that takes hours does.
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include "follow_parent.h"
int main(int, char **argv) {
  OpenStandardStreams();
  FollowParent(std::atoi(argv[1]));
  std::printf("%d\n", getpid());
  std::fflush(stdout);
  for (volatile unsigned long i = 0;; ++i) {
  }
}
"""
# Starts the program with a pipe of which a forked process holds the other end too, says its number, and waits.
PARENT = """
import os, subprocess, sys, time
program = subprocess.Popen([sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
if (child := os.fork()) == 0:
    os.close(1)
    time.sleep(600)
print(program.stdout.readline().decode().strip(), child, flush=True)
if sys.argv[3] == "closes":
    os.kill(child, 9)
    program.stdin.close()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.cc").write_text(PROGRAM)
    subprocess.run([*find_compiler(), "-std=c++17", "-pthread", f"-I{SOURCES}", "main.cc", "-o", "program"], cwd=folder, check=True)
    return folder / "program"


@pytest.mark.parametrize("requests, act", [("0", "is killed"), ("-1", "is killed"), ("0", "closes")])
def test_it_ends_whatever_it_is_doing(program, requests, act):
    """With its parent, although a process that was forked from that one lives on; and when its requests end."""
    command = [sys.executable, "-c", PARENT, program, requests, act]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid, child = map(int, parent.stdout.readline().split())
        try:
            if act == "is killed":
                parent.kill()
                parent.wait()
            assert ends(pid)
        finally:
            for left in (pid, child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            parent.kill()


def test_it_lives_as_long_as_its_parent(program):
    """Also if the thread that started it has ended."""
    started = []
    thread = threading.Thread(target=lambda: started.append(
        subprocess.Popen([program, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)))
    thread.start()
    thread.join()
    process, = started
    process.stdout.readline()
    time.sleep(0.2)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(PATIENCE) == 1
    process.stdout.close()


@pytest.mark.parametrize("verbosity", ["", "0"])
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-", "<&-"])
def test_a_program_whose_standard_streams_are_closed(engine, tmp_path_factory, tmp_path, closed, verbosity):
    """No file of the model takes their place, where Lite's log would go."""
    folder = tmp_path_factory.getbasetemp() / "closed"
    if not folder.exists():
        folder.mkdir()
        small_graph.write(folder)
    code = (
        "import sys, numpy as np\n"
        "from kandinsky_mindir.runner import engine\n"
        "graph, inputs, outputs = sys.argv[1:]\n"
        "with engine.create('bridge').load(graph, threads=1) as model:\n"
        "    for _ in range(3):\n"
        "        found = model.run(list(np.load(inputs).values()))\n"
        "np.savez(outputs, *found)\n"
    )
    inputs = make_inputs()
    np.savez(tmp_path / "inputs.npz", *inputs)
    names = [folder / "lowered.mindir", tmp_path / "inputs.npz", tmp_path / "outputs.npz"]
    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code, *names], check=True,
                   capture_output=True, env={**os.environ, "GLOG_v": verbosity})
    for output, right in zip(np.load(tmp_path / "outputs.npz").values(), expected(*inputs)):
        np.testing.assert_array_equal(output, right)
