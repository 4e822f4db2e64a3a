"""The processes that the C++ program starts: what is said when one dies, and that none is left."""

import os
import signal
import subprocess
import time

import pytest
from descendants import PATIENCE, children, ends
from test_native_library import REQUEST, Library

KILLED = "MindSpore Lite was killed, as the system does when memory runs out"


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def running(kandinsky, bundles, tmp_path):
    """The program in a session of its own, in the middle of a picture; its starter; the processes of its models."""
    command = [kandinsky.path, "generate", bundles("narrow"), "a cat", "--steps", "1000", "--keep-loaded"]
    process = subprocess.Popen(command, cwd=tmp_path, env=kandinsky.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    wait_for(lambda: any(len(children(starter)) > 2 for starter in children(process.pid)))
    starter, = children(process.pid)
    time.sleep(0.3)
    yield process, starter, children(starter)
    process.kill()
    process.communicate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["all models", "the starter"])
def test_one_is_killed(running, which):
    process, starter, models = running
    for pid in models if which == "all models" else [starter]:
        os.kill(pid, signal.SIGKILL)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (2, "") and errors.endswith(f": {KILLED}\n") and errors.count("\n") == 1
    assert all(map(ends, [starter, *models]))


def test_the_program_is_killed(running):
    process, starter, models = running
    process.kill()
    assert all(map(ends, [starter, *models]))


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_of_them(running, number, status):
    """As a terminal sends it, or a service's supervisor."""
    process, starter, models = running
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (status, "", "kandinsky: stopped\n")
    assert all(map(ends, [starter, *models]))


@pytest.mark.parametrize("text, words", [
    ("#!/bin/sh\necho no such library >&2\nexit 127\n", "MindSpore Lite ended with status 127: no such library"),
    ("no program", "MindSpore Lite does not start: Exec format error"),
    ("#!/bin/sh\nexec sleep 600\n", "MindSpore Lite has not answered for 0.5 s and was ended"),
])
def test_it_does_not_start(kandinsky, bundles, tmp_path, text, words):
    bridge = tmp_path / "bridge"
    bridge.write_text(text)
    bridge.chmod(0o755)
    made = kandinsky("generate", bundles("narrow"), "cat", cwd=tmp_path, KANDINSKY_MINDIR_BRIDGE=str(bridge), KANDINSKY_MINDIR_DEADLINE="0.5")
    assert (made.returncode, made.stdout) == (2, "") and words in made.stderr and made.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [bridge]


def test_a_stop_while_the_libraries_load(kandinsky, bundles, tmp_path):
    bridge = tmp_path / "bridge"
    bridge.write_text("#!/bin/sh\nexec sleep 600\n")
    bridge.chmod(0o755)
    process = subprocess.Popen([kandinsky.path, "generate", bundles("narrow"), "cat"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                               env={**kandinsky.environment, "KANDINSKY_MINDIR_BRIDGE": str(bridge)})
    wait_for(lambda: children(process.pid))
    starter, = children(process.pid)
    time.sleep(0.3)
    process.terminate()
    assert process.communicate(timeout=PATIENCE)[1] == "kandinsky: stopped\n" and process.returncode == 143 and ends(starter)


def test_a_library_lets_go_of_all(kandinsky, bundles, monkeypatch):
    """Models and their starter, when it is asked to, and makes the same again."""
    monkeypatch.setenv("KANDINSKY_MINDIR_BRIDGE", kandinsky.environment["KANDINSKY_MINDIR_BRIDGE"])
    library, before = Library(kandinsky.folder / "libkandinsky_mindir.so"), children(os.getpid())
    _, bundle, error = library.open(bundles("narrow"))
    assert bundle, error
    pictures = []
    for _ in range(2):
        status, (picture,), error = library.make(bundle, REQUEST)
        assert (status, error) == (0, "")
        pictures.append(picture)
        starter, = set(children(os.getpid())) - set(before)
        models = children(starter)
        assert models
        library.c.kandinsky_unload(bundle)
        assert set(children(os.getpid())) <= set(before) and all(map(ends, models))
    library.c.kandinsky_close(bundle)
    assert (pictures[0] == pictures[1]).all()
