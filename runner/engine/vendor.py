"""MindSpore Lite through the vendor's own Python package, `mindspore_lite`, inside the running process.

This file stands alone and keeps to Python 3.7, the only Python that the 2.0.0 wheel installs into: it can be loaded
by its path there, and is tested so. Versions 2.1 and later are written for as documented (`Model.get_outputs`, which
2.0.0 lacks), not run; so is the device "ascend". The package cannot be imported next to `mindspore`.
"""

import collections
import os
import threading

import numpy as np

TensorSpec = collections.namedtuple("TensorSpec", "name shape dtype")


class VendorEngine:
    """The engine interface (interface.py). What the package cannot do, or its absence, is raised as `error`."""

    name = "vendor"
    takes_model_files = False  # it opens files by name only

    def __init__(self, error=RuntimeError):
        os.environ.setdefault("GLOG_v", "4")  # read at import: from 3 down, Lite logs lines for graphs that run well
        try:
            import mindspore_lite
        except ImportError as failure:
            raise error("the engine 'vendor' needs the mindspore_lite package, which cannot be imported here: "
                        + _first_line(failure) + ": use the engine 'bridge'")
        self.version = mindspore_lite.__version__
        self._lite = mindspore_lite
        self._error = error

    def load(self, path, *, device="cpu", threads=None):
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
        context.target = [name]
        return VendorModel(self._lite, str(path), context, self._error)


class VendorModel:
    """One loaded graph: `inputs` and `outputs` are TensorSpecs, in the order that `run` takes and gives."""

    def __init__(self, lite, path, context, error):
        self._path, self._error = path, error
        self._lock = threading.Lock()
        model_type = lite.ModelType.MINDIR_LITE if path.endswith(".ms") else lite.ModelType.MINDIR
        self._model = lite.Model()
        try:
            self._model.build_from_file(path, model_type, context)
        except RuntimeError as failure:
            raise error("{}: {}; GLOG_v=3 in the environment shows why".format(path, _first_line(failure)))
        if hasattr(self._model, "get_outputs"):
            outputs = self._model.get_outputs()
        else:
            outputs = [lite.Tensor(tensor) for tensor in self._model._model.get_outputs()]
        self.inputs = tuple(map(_spec, self._model.get_inputs()))
        self.outputs = tuple(map(_spec, outputs))

    def run(self, arrays):
        """The outputs for `arrays`, one for each of `inputs`. ValueError names an array that does not fit."""
        self._check(arrays)
        with self._lock:
            if self._model is None:
                raise RuntimeError("{}: the model is closed".format(self._path))
            tensors = self._model.get_inputs()
            for tensor, array in zip(tensors, arrays):
                tensor.set_data_from_numpy(np.ascontiguousarray(array))
            try:
                results = self._model.predict(tensors)
            except RuntimeError as failure:
                raise self._error("{}: {}".format(self._path, _first_line(failure)))
            return [np.array(tensor.get_data_to_numpy()) for tensor in results]  # copied: the next run reuses these

    def close(self):
        """Free the model; calling it again does nothing."""
        with self._lock:
            self._model = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _check(self, arrays):
        if len(arrays) != len(self.inputs):
            raise ValueError("{} arrays given for {} inputs".format(len(arrays), len(self.inputs)))
        for spec, array in zip(self.inputs, arrays):
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise ValueError("input {!r} must be {} of shape {}, not {} of {}".format(
                    spec.name, spec.dtype, spec.shape, array.dtype, array.shape))


def _spec(tensor):
    return TensorSpec(tensor.name, tuple(tensor.shape), tensor.dtype.name.lower())


def _first_line(failure):
    return (str(failure).splitlines() or [type(failure).__name__])[0]
