"""MindSpore Lite through our own small program (bridge.cc), one process for each loaded model.

Lite's libraries cannot live in a process that has imported MindSpore: both bring a `libmindspore_core.so`, and
whichever comes second fails. A process of its own also gives all memory back when the model is closed (unloading a
MindIR in place keeps about one copy of its weights), keeps Lite's log off the user's terminal, and turns a crash or
the out-of-memory killer into an error message. Arrays travel through shared memory, which Lite reads in place.
"""

import contextlib
import mmap
import os
import re
import signal
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

from ..bundle.ms_file import HOLE, ModelFile, Piece
from . import runtime
from .interface import EngineError, TensorSpec, check_arrays, parse_device, say_on_stderr, thread_count

# mindspore::DataType (include/api/data_type.h) to NumPy
DTYPES = {
    30: "bool", 32: "int8", 33: "int16", 34: "int32", 35: "int64", 37: "uint8", 38: "uint16", 39: "uint32",
    40: "uint64", 42: "float16", 43: "float32", 44: "float64",
}  # fmt: skip

MINDIR, MS = 0, 4  # mindspore::ModelType (include/api/types.h)

ERROR_LEVEL = "3"  # of GLOG_v: enough to quote the reason when a graph is refused
ERROR_LINE = re.compile(r"^\[ERROR\] \w+\(.*?\):\S+ \[.*?\] (\w+)\] (.*)", re.MULTILINE)
HARMLESS = ("prim is nullptr", "Runtime error for null exception handler.")  # logged for graphs that run well, too
LOG_LIMIT = 1 << 20
LARGE_PAGES = "glibc.malloc.hugetlb=1"  # for packed weights: fewer page faults in a load, fewer address misses in a run


class BridgeEngine:
    """Lite 2.0 as `runtime` installed it. `say` receives a line when something has to be fetched first."""

    name = "bridge"
    version = runtime.VERSION
    takes_model_files = True

    def __init__(self, say=say_on_stderr):
        self.runtime = runtime.ensure(say)

    def load(self, path, *, device="cpu", threads=None):
        """See interface.Engine; `path` may also be a ModelFile, which can be closed afterwards.

        `threads` is by default the number of CPUs that this process may use.
        """
        threads = thread_count(threads)
        device_name, device_id = parse_device(device)
        if not isinstance(path, ModelFile):
            path = Path(path)
            if not path.is_file():
                raise EngineError(f"{path}: no such file")
        return BridgeModel(self.runtime, path, device_name, device_id, threads)

    def pack(self, file, keep, *, threads=None):
        """Load a ModelFile and write its weights, as Lite packs them, to `keep`, an empty file.

        `packed` of the model then says, in Pieces without a source, where the packed form of the tensor at each position
        lies: to be given to `ModelFile`s of the same recipe on machines of the same kind.
        """
        return BridgeModel(self.runtime, file, *parse_device("cpu"), thread_count(threads), keep)

    def convert(self, mindir, ms):
        """Write the MindIR file `mindir` (one that Lite reads) as the `.ms` file `ms`, inputs and outputs as they are.

        The graph computes the same and loads some ten times faster. The file holds its own weights: from about 2 GB
        of them Lite makes a file that does not load. EngineError says why a graph cannot be converted.
        """
        mindir, ms = Path(mindir), Path(ms)
        with _log_file() or contextlib.nullcontext() as log:
            command = [self.runtime.convert, mindir.absolute(), ms.absolute()]
            result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, env=_environment(log))
            if result.returncode:
                ms.unlink(missing_ok=True)
                reason = _reason(log) or _cause_of_death(result.returncode, log)
                raise EngineError(f"{mindir}: MindSpore Lite cannot convert it: {reason}")


class BridgeModel:
    """A loaded model: a process, and the memory shared with it. See interface.LiteModel."""

    def __init__(self, installed, path, device, device_id, threads, keep=None):
        self._path = path
        self._lock = threading.Lock()
        self._log = _log_file()
        shared = os.memfd_create("kandinsky-mindir")
        if isinstance(path, ModelFile):
            file, model_type, passed, pieces = path.path, MS, [shared, path.fileno(), path.pieces.fileno()], [path.pieces.path]
            if keep is not None:
                passed.append(keep.fileno())
                pieces.append(str(keep.fileno()))
        else:
            file, model_type, passed, pieces = path.absolute(), MS if path.suffix == ".ms" else MINDIR, [shared], []
        try:
            self._process = subprocess.Popen(
                [installed.bridge, file, *map(str, (model_type, device, device_id, threads, shared)), *pieces],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                pass_fds=passed,
                env=_with_large_pages(_environment(self._log)),
            )
            self._finalizer = weakref.finalize(self, _end, self._process)
            self.inputs, self.outputs, offsets = self._describe()
            memory = mmap.mmap(shared, 0)
        except OSError as error:
            raise EngineError(f"{path}: MindSpore Lite does not start: {error}") from error
        finally:
            os.close(shared)
        arrays = [
            np.ndarray(spec.shape, spec.dtype, memory, offset)
            for spec, offset in zip(self.inputs + self.outputs, offsets)
        ]
        self._inputs, self._outputs = arrays[: len(self.inputs)], arrays[len(self.inputs) :]

    def run(self, arrays):
        check_arrays(self.inputs, arrays)
        with self._lock:
            if not self._finalizer.alive:
                raise RuntimeError(f"{self._path}: the model is closed")
            for buffer, array in zip(self._inputs, arrays):
                buffer[...] = array
            try:
                if self._log:  # a reason for failure is to come from this run; the process shares the file's offset
                    self._log.seek(0)
                    self._log.truncate()
                os.write(self._process.stdin.fileno(), b"r")
                self._reply()
            except BrokenPipeError:
                raise EngineError(f"{self._path}: {self._death()}") from None
            except KeyboardInterrupt:
                self._finalizer()  # its answer would be taken for the next run's
                raise
            return [buffer.copy() for buffer in self._outputs]

    def close(self):
        with self._lock:  # a run that is under way ends first
            self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _describe(self):
        specs, self.packed = {"input": [], "output": []}, []
        offsets = []
        while (words := self._reply().split(" "))[0] != "ready":
            if words[0] == "packed":
                position, length, offset = map(int, words[1:])
                self.packed.append(Piece(position, HOLE, offset, length))
                continue
            kind, type_id, offset, rank = words[0], int(words[1]), int(words[2]), int(words[3])
            name = " ".join(words[4 + rank :])
            if type_id not in DTYPES:
                raise EngineError(f"{self._path}: {kind} {name!r} has an element type that NumPy lacks ({type_id})")
            specs[kind].append(TensorSpec(name, tuple(map(int, words[4 : 4 + rank])), DTYPES[type_id]))
            offsets.append(offset)
        names = [spec.name for spec in specs["input"]]
        if len(set(names)) != len(names):
            raise EngineError(f"{self._path}: inputs share a name ({', '.join(names)})")
        return tuple(specs["input"]), tuple(specs["output"]), offsets

    def _reply(self):
        """The next line from the process; EngineError, with Lite's own reason, if it is an error or there is none."""
        line = self._process.stdout.readline().decode(errors="replace").rstrip("\n")
        if not line:
            raise EngineError(f"{self._path}: {self._death()}")
        if line.startswith("error "):
            reason = _reason(self._log) or line.removeprefix("error ")
            if "libascend_kernel_plugin" in reason:
                reason = (f"its Ascend plugin does not open: that takes an Ascend machine with the CANN toolkit, and "
                          f"CANN's set_env.sh in the environment ({reason})")
            raise EngineError(f"{self._path}: MindSpore Lite cannot use it: {reason}")
        return line

    def _death(self):
        """What the process died of, with its last words."""
        return _cause_of_death(self._process.wait(), self._log)


def _log_file():
    """Where Lite's log goes, for _reason to read; None, the terminal, if the user asks for more of it than errors."""
    return None if os.environ.get("GLOG_v") in ("0", "1", "2") else tempfile.TemporaryFile(buffering=0)


def _environment(log):
    return {**os.environ, "GLOG_v": ERROR_LEVEL} if log else dict(os.environ)


def _with_large_pages(environment):
    tunables = filter(None, [LARGE_PAGES, environment.get("GLIBC_TUNABLES")])  # the user's come last, and win
    return {**environment, "GLIBC_TUNABLES": ":".join(tunables)}


def _cause_of_death(status, log):
    if status == -signal.SIGKILL:
        return "MindSpore Lite was killed, as the system does when memory runs out"
    last = _read(log).strip().rpartition("\n")[2]
    return f"MindSpore Lite ended with {f'signal {-status}' if status < 0 else f'status {status}'}: {last}"


def _reason(log):
    """The first cause that Lite logged: the lines after it only say which callers gave up."""
    errors = [f"{place}: {message}" for place, message in re.findall(ERROR_LINE, _read(log)) if message not in HARMLESS]
    caught = [error for error in errors if "Catch exception: " in error]
    return next(iter(caught + errors), "").strip()


def _read(log):
    # pread leaves the file's offset alone, which the process shares
    return os.pread(log.fileno(), LOG_LIMIT, 0).decode(errors="replace") if log else ""


def _end(process):
    process.kill()  # it holds no state worth a farewell
    process.stdin.close()
    process.stdout.close()
    process.wait()
