"""MindSpore Lite through our own small program (bridge.cc), one process for each loaded model.

Lite's libraries cannot live in a process that has imported MindSpore: both bring a `libmindspore_core.so`, and
whichever comes second fails. A process of its own also gives all memory back when the model is closed (unloading a
MindIR in place keeps about one copy of its weights), keeps Lite's log off the user's terminal, and turns a crash or
the out-of-memory killer into an error message. Arrays travel through shared memory, which Lite reads in place.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.ms_file import ModelFile
from ..bundle.ms_layout import HOLE, Stretch
from ..common.control_groups import thread_count
from ..common.errors import is_of_system
from ..common.locks import HasFileno
from ..common.memory_file import memory_file
from . import runtime
from .interface import EngineError, Say, TensorSpec, check_arrays, parse_device, say_on_stderr
from .lite_log import LiteLog
from .process import DEADLINE_VARIABLE, BridgeProcess, cause_of_death
from .process import deadline as _deadline

# mindspore::DataType (include/api/data_type.h) to NumPy
DTYPES = {
    30: "bool", 32: "int8", 33: "int16", 34: "int32", 35: "int64", 37: "uint8", 38: "uint16", 39: "uint32",
    40: "uint64", 42: "float16", 43: "float32", 44: "float64",
}  # fmt: skip

MINDIR, MS = 0, 4  # mindspore::ModelType (include/api/types.h)


class BridgeEngine:
    """Lite 2.0 as `runtime` installed it.

    say: receives a line when something has to be fetched first. deadline: seconds that a load, a run or a conversion may
    take before it counts as hung; by default $KANDINSKY_MINDIR_DEADLINE, else an hour. precision: of `.ms` models:
    "float32", "bfloat16", in which kernels of ours compute matrix products and convolutions, or "float16", in which other
    kernels of Lite compute all between a model's inputs and outputs. kernels: of `.ms` models in float32; None: ours, where
    this machine has what they need (runtime.kernels), and "lite": Lite's.
    """

    name = "bridge"
    version = runtime.VERSION
    takes_model_files = True
    reads = "lite"

    def __init__(
        self, say: Say = say_on_stderr, deadline: float | None = None, precision: str = "float32", kernels: str | None = None
    ):  # fmt: skip
        self.deadline, self.precision = _deadline(deadline), precision
        _open_standard_streams()
        self.runtime = runtime.ensure(say)
        if precision == "bfloat16":
            runtime.ensure_onednn(say)
        self.kernels = kernels or runtime.kernels(precision)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BridgeEngine) and self._kind == other._kind

    def __hash__(self) -> int:
        return hash(self._kind)

    @property
    def _kind(self) -> tuple:
        return self.runtime, self.deadline, self.precision, self.kernels

    def load(
        self, path: str | os.PathLike[str] | ModelFile, *, device: str = "cpu", threads: int | None = None
    ) -> BridgeModel:
        """See interface.Engine; `path` may also be a ModelFile, which can be closed afterwards.

        `threads` is by default the number of CPUs that this process may use.
        """
        threads = thread_count(threads)
        device_name, device_id = parse_device(device)
        if not isinstance(path, ModelFile):
            path = Path(path)
            if not path.is_file():
                raise EngineError(f"{path}: no such file")
        return BridgeModel(self, path, device_name, device_id, threads)

    def pack(self, file: ModelFile, keep: HasFileno, *, threads: int | None = None) -> BridgeModel:
        """Load a ModelFile and write its weights, as Lite packs them, to `keep`, an empty file.

        `packed` of the model then says, in Stretches without a source, where the packed form of the tensor at each position
        lies: to be given to `ModelFile`s of the same layout on machines of the same kind.
        """
        return BridgeModel(self, file, *parse_device("cpu"), thread_count(threads), keep)

    def convert(self, mindir: str | os.PathLike[str], ms: str | os.PathLike[str]) -> None:
        """Write the MindIR file `mindir` (one that Lite reads) as the `.ms` file `ms`, inputs and outputs as they are.

        The graph computes the same and loads some ten times faster. The file holds its own weights: from about 2 GB
        of them Lite makes a file that does not load. EngineError says why a graph cannot be converted. No half-written
        file is left, whatever exception ends the conversion.
        """
        mindir, ms = Path(mindir), Path(ms)
        log = LiteLog()
        try:
            result = subprocess.run([self.runtime.convert, mindir.absolute(), ms.absolute()], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=log.file, env=log.environment(), timeout=self.deadline)
            if result.returncode:
                reason = log.reason() or cause_of_death(result.returncode, log)
                raise EngineError(f"{mindir}: MindSpore Lite cannot convert it: {reason}")
        except BaseException as error:
            ms.unlink(missing_ok=True)
            if isinstance(error, subprocess.TimeoutExpired):
                raise EngineError(f"{mindir}: MindSpore Lite has not converted it in {self.deadline:g} s: if it only needs "
                                  f"longer, set {DEADLINE_VARIABLE} to more seconds") from None
            if is_of_system(error):
                raise EngineError(f"{mindir}: MindSpore Lite's converter does not start: {error}") from error
            raise
        finally:
            log.close()


class BridgeModel:
    """A loaded model: a process, and the memory shared with it. See interface.LiteModel."""

    def __init__(
        self, engine: BridgeEngine, path: Path | ModelFile, device: str, device_id: int, threads: int,
        keep: HasFileno | None = None,
    ):  # fmt: skip
        self._path = path
        self._lock = threading.RLock()  # a signal handler may close a model that the thread it interrupts is running
        with open(memory_file("kandinsky-mindir"), "r+b", buffering=0) as shared:
            descriptors = [shared.fileno()]
            if isinstance(path, ModelFile):
                file, model_type, table = path.path, MS, [path.table.path]
                descriptors += [path.fileno(), path.table.fileno()]
                if keep is not None:
                    descriptors.append(keep.fileno())
                    table.append(str(keep.fileno()))
            else:
                file, model_type, table = str(path.absolute()), MS if path.suffix == ".ms" else MINDIR, []
            precision, kernels = (engine.precision, engine.kernels) if model_type == MS else ("float32", "lite")
            numbers = map(str, (model_type, device, device_id, threads, precision, kernels, shared.fileno()))
            command = [str(engine.runtime.bridge), file, *numbers, *table]
            self._process = BridgeProcess(command, descriptors, str(path), engine.deadline)
            with self._process.conversation():
                self.inputs, self.outputs, offsets = self._describe()
                memory = _map(shared, path)
                arrays = [np.ndarray(spec.shape, spec.dtype, memory, offset)
                          for spec, offset in zip(self.inputs + self.outputs, offsets)]
        self._inputs, self._outputs = arrays[: len(self.inputs)], arrays[len(self.inputs) :]

    @property
    def usable(self) -> bool:
        return self._process.usable

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        check_arrays(self.inputs, arrays)
        if not self._process.owned:  # a thread that is not in this process may hold the lock
            self._process.check()
        with self._lock, self._process.conversation():
            for buffer, array in zip(self._inputs, arrays):
                buffer[...] = array
            self._process.ask_for_a_run()
            return [buffer.copy() for buffer in self._outputs]

    def close(self) -> None:
        if self._process.owned:
            with self._lock:  # a run that is under way in another thread ends first
                self._process.close()
                self._inputs, self._outputs = [], []  # the shared memory goes with them

    def __enter__(self) -> BridgeModel:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _describe(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], list[int]]:
        """Inputs and outputs, and where in the shared memory each of them lies."""
        specs: dict[str, list[TensorSpec]] = {"input": [], "output": []}
        self.packed: list[Stretch] = []
        offsets = []
        while (words := self._process.line().split(" "))[0] != "ready":
            if words[0] == "packed":
                position, length, offset = map(int, words[1:])
                self.packed.append(Stretch(position, HOLE, offset, length))
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


def _map(shared: HasFileno, path: Path | ModelFile) -> mmap.mmap:
    try:
        return mmap.mmap(shared.fileno(), 0)
    except OSError as error:
        if not is_of_system(error):
            raise
        raise EngineError(f"{path}: no memory for its inputs and outputs: {error}") from error


def _open_standard_streams() -> None:
    """A program that is started gets new standard streams in place of 0, 1 and 2: no file of ours may have such a number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
