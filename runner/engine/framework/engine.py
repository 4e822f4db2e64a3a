"""A bundle's MindIR on MindSpore itself, inside the running process: the way for a server that has MindSpore and CANN.

MindSpore is imported when the engine is made, and only then. Lite's libraries live in processes of their own (bridge.py),
so the two do not meet; the vendor's package of Lite does not load beside it. All models of a process are on one device:
MindSpore knows no more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...common.control_groups import thread_count
from ...common.scratch import scratch_folder
from ..interface import EngineError, TensorSpec, check_arrays, parse_device
from .mindir import inputs_of, outputs_of

DTYPES = {1: "float32", 6: "int32"}  # TensorProto.DataType of mindspore/train/mind_ir.proto
WEIGHTS = {1: "<f4", 10: "<f2"}  # types that weights are stored in
TARGETS = {"cpu": "CPU", "ascend": "Ascend"}
INSTALL = "pip install 'kandinsky-mindir[mindspore]'"
# MindSpore's compiler and its executor are one for the process. A signal handler may close a model that the thread it
# interrupts is running.
_LOCK = threading.RLock()


class MindSporeEngine:
    """See interface.Engine. It loads `.mindir` files as MindSpore wrote them, and computes as they say: in float32."""

    name = "mindspore"
    precision = "float32"
    takes_model_files = False
    reads = "mindir"

    def __init__(self) -> None:
        os.environ.setdefault("GLOG_v", "4")  # read at import: from 3 down, it logs pages beside every error
        try:
            import mindspore
        except (ImportError, OSError) as error:
            raise EngineError("the engine 'mindspore' needs MindSpore, which cannot be imported here: "
                              f"{_first_line(error)}: run {INSTALL}, or use the engine 'bridge'") from None
        self.version = mindspore.__version__
        self._mindspore = mindspore

    def load(self, path: str | os.PathLike[str], *, device: str = "cpu", threads: int | None = None) -> MindSporeModel:
        """See interface.Engine. `threads` counts for the first model of the process, before MindSpore starts its own."""
        threads = thread_count(threads)
        device_name, device_id = parse_device(device)
        path = Path(path)
        if not path.is_file():
            raise EngineError(f"{path}: no such file")
        with _LOCK:
            self._use(TARGETS[device_name], device_id, threads)
            return MindSporeModel(self._mindspore, path)

    def _use(self, target: str, device_id: int, threads: int) -> None:
        """Set the device; EngineError if MindSpore has none such, or has been given another one."""
        self._mindspore.set_context(mode=self._mindspore.GRAPH_MODE, runtime_num_threads=threads)
        found = self._mindspore.get_current_device()
        if (found.device_target, found.device_id) == (target, device_id):
            return
        try:
            self._mindspore.set_device(target, device_id)
        except (RuntimeError, ValueError) as error:
            reason = _first_line(error).partition(". Please ")[0]
            raise EngineError(f"MindSpore {self.version} does not compute on {target} {device_id} here: {reason}: use another "
                              "--device; a process keeps the one that it began with") from None


class MindSporeModel:
    """One loaded graph; see interface.LiteModel."""

    def __init__(self, mindspore: Any, path: Path):
        self._path, self._owner, self._tensor = path, os.getpid(), mindspore.Tensor
        self._sound = True  # every run has ended well so far
        model = _read(path)
        self.inputs, self.outputs = _specs(path, inputs_of(model)), _specs(path, outputs_of(model))
        weights = {name: mindspore.Tensor(array) for name, array in _taken_weights(path, model)}
        try:
            with scratch_folder() as folder:
                bare = folder / "graph.mindir"
                bare.write_bytes(model.SerializeToString())
                self._cell = mindspore.nn.GraphCell(mindspore.load(str(bare)), params_init=weights)
        except (RuntimeError, TypeError, ValueError) as error:
            raise EngineError(f"{path}: MindSpore {mindspore.__version__} does not load it: {_first_line(error)}; "
                              "GLOG_v=3 in the environment shows why") from None

    @property
    def usable(self) -> bool:
        return self._cell is not None and self._sound and os.getpid() == self._owner

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        check_arrays(self.inputs, arrays)
        if os.getpid() != self._owner:  # MindSpore's threads are not here, and one that is not may hold the lock
            raise EngineError(f"{self._path}: it was loaded in process {self._owner}, from which this process "
                              f"({os.getpid()}) was forked: load it in this process")
        with _LOCK:
            if self._cell is None:
                raise RuntimeError(f"{self._path}: the model is closed")
            if not self._sound:
                raise EngineError(f"{self._path}: a run of it has not ended well: load it again")
            self._sound = False
            try:
                results = self._cell(*(self._tensor(np.ascontiguousarray(array)) for array in arrays))
                results = results if isinstance(results, tuple) else (results,)
                outputs = [np.array(result.asnumpy()) for result in results]  # copied: MindSpore may use the memory again
            except RuntimeError as error:
                raise EngineError(f"{self._path}: MindSpore does not run it: {_first_line(error)}") from None
            self._sound = True
            return outputs

    def close(self) -> None:
        if os.getpid() == self._owner:
            with _LOCK:
                self._cell = None

    def __enter__(self) -> MindSporeModel:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _read(path: Path) -> Any:
    """The ModelProto of a file. EngineError if it is none."""
    from google.protobuf.message import DecodeError
    from mindspore.train.mind_ir_pb2 import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        whole = bool(model.graph.node and model.graph.output)
    except DecodeError:
        whole = False
    if not whole:
        raise EngineError(f"{path} is not MindIR: it is cut or damaged; export the bundle again")
    return model


def _specs(path: Path, tensors: list[tuple[str, Any]]) -> tuple[TensorSpec, ...]:
    """As the file says: MindSpore's loaded graph does not give names."""
    for name, tensor in tensors:
        if tensor.data_type not in DTYPES:
            raise EngineError(f"{path}: {name!r} has an element type that this engine does not pass on ({tensor.data_type})")
    return tuple(TensorSpec(name, tuple(tensor.dims), DTYPES[tensor.data_type]) for name, tensor in tensors)


def _taken_weights(path: Path, model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The weights that lie in other files, by name; `model` does not refer to them any more.

    MindSpore itself reads no file that a link leads to, and an unpacked graph (Bundle.unpacked) has links to its weights.
    """
    for parameter in model.graph.parameter:
        place, shape = parameter.external_data, tuple(parameter.dims)
        if parameter.HasField("external_data"):
            try:
                kind = WEIGHTS[parameter.data_type]
                yield parameter.ref_key, np.memmap(path.parent / place.location, kind, "r", place.offset, shape)
            except (KeyError, OSError, ValueError) as error:
                raise EngineError(f"{path}: {place.location} does not hold {parameter.ref_key}: {error}") from None
            parameter.ClearField("external_data")


def _first_line(error: BaseException) -> str:
    """What a library's message, which may have pages, says first."""
    return next((line.strip() for line in str(error).splitlines() if line.strip(" -")), type(error).__name__)
