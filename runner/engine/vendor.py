"""MindSpore Lite through the vendor's own Python package, `mindspore_lite`, inside the running process.

This file stands alone and keeps to Python 3.7, the only Python that the 2.0.0 wheel installs into: it can be loaded
by its path there, and is tested so. Later versions, of which no wheel was at hand, are written for by the source of 2.7.0
(mindspore-lite/python/api: context.py, model.py, tensor.py) and tested on a stand-in that refuses what that refuses; so is
the device "ascend". The package cannot be imported next to `mindspore`.
"""

from __future__ import annotations

import collections
import os
import threading
from typing import Any, List, Optional, Sequence, Tuple, Type

import numpy as np

TensorSpec = collections.namedtuple("TensorSpec", "name shape dtype")


class VendorEngine:
    """The engine interface (interface.py). What the package cannot do, or its absence, is raised as `error`."""

    name = "vendor"
    precision = "float32"
    takes_model_files = False  # it opens files by name only

    def __init__(self, error: Type[Exception] = RuntimeError):
        os.environ.setdefault("GLOG_v", "4")  # read at import: from 3 down, Lite logs lines for graphs that run well
        try:
            import mindspore_lite  # type: ignore[import-not-found]
        except ImportError as failure:
            raise error("the engine 'vendor' needs the mindspore_lite package, which cannot be imported here: "
                        + _first_line(failure) + ": use the engine 'bridge'")
        self.version = mindspore_lite.__version__
        # Up to 2.2 it reads MindIR 1 alone; later ones read what MindSpore wrote.
        self.reads = "lite" if _numbers(self.version) < (2, 3) else "mindir"
        self._lite = mindspore_lite
        self._error = error

    def load(self, path: Any, *, device: str = "cpu", threads: Optional[int] = None) -> VendorModel:
        """Load a MindIR or `.ms` file; `device` is "cpu", "ascend" or "ascend:1"."""
        name, _, index = device.partition(":")
        if name not in ("cpu", "ascend") or (index and (name == "cpu" or not index.isdecimal())):
            raise self._error("unknown device {!r}: use cpu, ascend or ascend:ID".format(device))
        if threads is not None and threads < 1:
            raise self._error("threads must be at least 1, not {}".format(threads))
        if not os.path.isfile(str(path)):
            raise self._error("{}: no such file".format(path))
        context = self._lite.Context()
        context.cpu.thread_num = threads or len(os.sched_getaffinity(0))
        if name == "ascend":
            context.ascend.device_id = int(index or 0)
        config = os.path.splitext(str(path))[0] + ".cfg"  # of a graph that was compiled for Ascend: what it asks the compiler for
        if name != "ascend" or not os.path.isfile(config):
            config = ""
        elif self.reads == "mindir":
            context.ascend.precision_mode = "enforce_origin"  # the graph says which layers are float16
        try:
            context.target = [name]
        except (RuntimeError, ValueError) as failure:
            raise self._error("MindSpore Lite {} has no device {} here: {}".format(self.version, name, _first_line(failure)))
        return VendorModel(self._lite, str(path), context, self._error, config)


class VendorModel:
    """One loaded graph: `inputs` and `outputs` are TensorSpecs, in the order that `run` takes and gives."""

    def __init__(self, lite: Any, path: str, context: Any, error: Type[Exception], config: str = ""):
        self._path, self._error, self._owner = path, error, os.getpid()
        self._lock = threading.Lock()
        self._sound = True  # every run has ended well so far
        model_type = lite.ModelType.MINDIR_LITE if path.endswith(".ms") else lite.ModelType.MINDIR
        self._model = lite.Model()
        try:
            self._model.build_from_file(path, model_type, context, *([config] if config else []))
        except RuntimeError as failure:
            raise error("{}: {}; GLOG_v=3 in the environment shows why".format(path, _first_line(failure)))
        if hasattr(self._model, "get_outputs"):
            outputs = self._model.get_outputs()
        else:
            outputs = [lite.Tensor(tensor) for tensor in self._model._model.get_outputs()]
        self.inputs = tuple(map(_spec, self._model.get_inputs()))
        self.outputs = tuple(map(_spec, outputs))

    @property
    def usable(self) -> bool:
        return self._model is not None and self._sound and os.getpid() == self._owner

    def run(self, arrays: Sequence[np.ndarray]) -> List[np.ndarray]:
        """The outputs for `arrays`, one for each of `inputs`. ValueError names an array that does not fit."""
        self._check(arrays)
        if os.getpid() != self._owner:  # Lite's threads are not here, and one that is not may hold the lock
            raise self._error("{}: it was loaded in process {}, from which this process ({}) was forked: load it in this "
                              "process".format(self._path, self._owner, os.getpid()))
        with self._lock:
            if self._model is None:
                raise RuntimeError("{}: the model is closed".format(self._path))
            if not self._sound:
                raise self._error("{}: a run of it has not ended well: load it again".format(self._path))
            self._sound = False
            tensors = self._model.get_inputs()
            for tensor, array in zip(tensors, arrays):
                tensor.set_data_from_numpy(np.ascontiguousarray(array))
            try:
                results = self._model.predict(tensors)
            except RuntimeError as failure:
                raise self._error("{}: {}".format(self._path, _first_line(failure)))
            outputs = [np.array(tensor.get_data_to_numpy()) for tensor in results]  # copied: the next run reuses these
            self._sound = True
            return outputs

    def close(self) -> None:
        """Free the model; calling it again does nothing, nor does a process that was forked from its owner."""
        if os.getpid() == self._owner:
            with self._lock:
                self._model = None

    def __enter__(self) -> VendorModel:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _check(self, arrays: Sequence[np.ndarray]) -> None:
        if len(arrays) != len(self.inputs):
            raise ValueError("{} arrays given for {} inputs".format(len(arrays), len(self.inputs)))
        for spec, array in zip(self.inputs, arrays):
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise ValueError("input {!r} must be {} of shape {}, not {} of {}".format(
                    spec.name, spec.dtype, spec.shape, array.dtype, array.shape))


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype.name.lower())


def _numbers(version: str) -> Tuple[int, ...]:
    """The first two numbers of a version: (2, 7) of "2.7.0rc1"."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:2])


def _first_line(failure: BaseException) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]
