"""One process of the bridge from which those of models are forked (runner/engine/native/model_starter.h)."""

import mmap
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from descendants import PATIENCE, children, ends
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.memory_file import memory_file
from kandinsky_mindir.runner.engine import runtime

FLOATS = 43  # mindspore::DataType


class Starter:
    """The program, as a process starts it that ignores the ends of its children. A context manager."""

    def __init__(self, bridge):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        with theirs:
            command = ["sh", "-c", 'trap "" CHLD; exec "$0" start "$1"', bridge, runtime.kernels("float32")]
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                                            env={**os.environ, "GLOG_v": "3"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.wait(PATIENCE)
        self.process.stderr.close()


class Started:
    """A model that is being loaded of a ModelFile."""

    def __init__(self, starter, file):
        self.memory, self.log = open(memory_file("memory"), "r+b"), open(memory_file("log"), "r+b")
        self.socket, theirs = socket.socketpair()
        self.leash, their_leash = socket.socketpair()
        with theirs, their_leash:
            descriptors = [each.fileno() for each in (theirs, their_leash, self.memory, file, file.table, self.log)]
            socket.send_fds(starter.socket, [f"4 cpu 0 2 float32 {runtime.kernels('float32')}".encode()], descriptors)
        for each in (self.socket, self.leash):
            each.settimeout(PATIENCE)
        self.lines = self.socket.makefile("rw", buffering=1)
        self.inputs, self.outputs = [], []

    def load(self):
        """Takes what it says once it is loaded."""
        tensors = {"input": [], "output": []}
        while (words := self.lines.readline().split())[0] != "ready":
            kind, type_, offset, rank = words[0], *map(int, words[1:4])
            tensors[kind].append((tuple(map(int, words[4 : 4 + rank])), np.float32 if type_ == FLOATS else np.int32, offset))
        shared = mmap.mmap(self.memory.fileno(), 0)
        self.inputs, self.outputs = ([np.ndarray(shape, dtype, shared, offset) for shape, dtype, offset in found]
                                     for found in tensors.values())

    def run(self, arrays):
        for buffer, array in zip(self.inputs, arrays, strict=True):
            buffer[...] = array
        self.lines.write("1\n")
        assert self.lines.readline() == "done 1\n"
        return [buffer.copy() for buffer in self.outputs]

    def status(self):
        """The wait status of its process, when that has ended."""
        return struct.unpack("i", self.leash.recv(4))[0]

    def close(self):
        for each in (self.lines, self.socket, self.leash, self.memory, self.log):
            each.close()


@pytest.fixture
def starter(engine):
    with Starter(engine.runtime.bridge) as started:
        yield started


@pytest.fixture
def file(bundles):
    bundle = Bundle(bundles("narrow"))
    path, = bundle.manifest.find("prior", 2, None).ms
    with bundle.model(path).assembled() as assembled:
        yield assembled


def test_models_live_and_end_each_for_itself(starter, file, engine):
    first, second = Started(starter, file), Started(starter, file)
    assert starter.socket.recv(1) == b"\0"  # the libraries are there
    opened = Path(f"/proc/{starter.process.pid}/maps").read_text()
    assert "libmindspore" in opened and ("libdnnl.so.3" in opened) == (runtime.kernels("float32") == "own")
    for started in (first, second):
        started.load()
    of_first, of_second = children(starter.process.pid)
    with engine.load(file, threads=2) as model:
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(spec.shape).astype(spec.dtype) for spec in model.inputs]
        expected = model.run(arrays)
    for started in (first, second):
        for found, right in zip(started.run(arrays), expected, strict=True):
            np.testing.assert_array_equal(found, right)

    first.leash.shutdown(socket.SHUT_WR)  # its program lets it go
    assert first.status() == signal.SIGKILL and first.leash.recv(1) == b""
    assert children(starter.process.pid) == [of_second] and of_first != of_second
    third = Started(starter, file)
    third.load()
    os.kill(of_second, signal.SIGSEGV)  # it dies of itself
    assert second.status() == signal.SIGSEGV and second.lines.readline() == ""
    np.testing.assert_array_equal(third.run(arrays)[0], expected[0])
    third.lines.close()  # what it is asked ends: so does it
    third.socket.close()
    assert os.waitstatus_to_exitcode(third.status()) in (0, 1)
    for started in (first, second, third):
        started.close()


@pytest.mark.parametrize("act", ["closes", "kills"])
def test_models_end_with_it(starter, file, act):
    """Also while they load, and although their sockets are open."""
    loaded, loading = Started(starter, file), Started(starter, file)
    loaded.load()
    pids = children(starter.process.pid)
    if act == "closes":
        starter.socket.close()
    else:
        starter.process.kill()
    starter.process.wait(PATIENCE)
    assert len(pids) == 2 and all(ends(pid) for pid in pids)
    assert loaded.leash.recv(4) == b""  # nobody knows its status
    for started in (loaded, loading):
        started.close()


def test_a_message_without_descriptors(starter):
    starter.socket.send(b"4 cpu 0 2 float32 lite")
    assert starter.process.wait(PATIENCE) == 1
    assert b"a model's descriptors do not arrive" in starter.process.stderr.read()
