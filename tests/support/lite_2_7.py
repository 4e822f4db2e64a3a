"""A stand-in for the Python package `mindspore_lite` 2.7.0, which no registry has.

Written from the signatures, types and refusals of its published source (mindspore-ai/mindspore-lite 2.7.0,
mindspore-lite/python/api: context.py, model.py, base_model.py, tensor.py, _checkparam.py). What its C++ libraries do is done
by the exporter's interpreter: a MindIR graph is really run. `DEVICES` says which of Lite's targets the machine has.
"""

import os
import types
from enum import Enum
from pathlib import Path

import numpy as np
from kandinsky_mindir.export.graphs import interpreter
from kandinsky_mindir.runner.engine.framework.mindir import inputs_of, outputs_of
from mindspore.train.mind_ir_pb2 import ModelProto

TYPES = {1: "FLOAT32", 6: "INT32"}  # of TensorProto
PRECISIONS = ["enforce_fp32", "preferred_fp32", "enforce_fp16", "enforce_origin", "preferred_optimal"]


class DataType(Enum):
    INT32 = 34
    FLOAT32 = 43


class ModelType(Enum):
    MINDIR = 0
    MINDIR_LITE = 4


def require(name, value, kind):
    """TypeError, as of _checkparam.check_isinstance."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, but got {type(value)}.")


class Whole:
    """A property that takes no other than a whole number from 0."""

    def __set_name__(self, owner, name):
        self.name = name

    def __set__(self, instance, value):
        require(self.name, value, int)
        if value < 0:
            raise ValueError(f"{self.name} must be a non-negative int.")
        vars(instance)[self.name] = value


class CPU:
    thread_num = Whole()


class Ascend:
    device_id = Whole()
    provider = ""
    _precision = "enforce_fp16"

    @property
    def precision_mode(self):
        return self._precision

    @precision_mode.setter
    def precision_mode(self, value):
        require("ascend_precision_mode", value, str)
        if value not in PRECISIONS:
            raise ValueError(f"ascend_precision_mode must be in {PRECISIONS}, but got {value}.")
        self._precision = value


class Context:
    def __init__(self):
        self.cpu, self.ascend, self._target = CPU(), Ascend(), ["cpu"]

    @property
    def target(self):
        return self._target

    @target.setter
    def target(self, target):
        require("target", target, list)
        for element in target:
            require("target element", element, str)
            if element.lower() not in ("cpu", "gpu", "ascend"):
                raise ValueError(f"target elements must be in ['cpu', 'gpu', 'ascend'], but got {element.lower()}.")
        self._target = target


class TensorMeta:
    """What get_outputs gives: no data."""

    def __init__(self, name, shape, dtype):
        self.name, self.shape, self.dtype = name, shape, dtype


class Tensor(TensorMeta):
    data = None

    def set_data_from_numpy(self, array):
        require("numpy_obj", array, np.ndarray)
        if array.dtype.name.upper() != self.dtype.name:
            raise RuntimeError(f"data type not equal! Numpy type: {array.dtype.type}, Tensor type: {self.dtype}")
        if array.nbytes != int(np.prod(self.shape)) * 4:
            raise RuntimeError(f"data size not equal! Numpy size: {array.nbytes}")
        self.data = np.frombuffer(array.tobytes("A"), array.dtype).reshape(self.shape)  # its bytes as they lie

    def get_data_to_numpy(self):
        return self.data


def weights_folder(graph, folder):
    """Where the weights lie that links in `folder` lead to: Lite has read them when a model is built."""
    found = {(folder / parameter.external_data.location).resolve().parent for parameter in graph.graph.parameter}
    return found.pop() if len(found) == 1 else folder


def package(devices=("cpu",), version="2.7.0"):
    """The package, for a machine with these devices; `built` lists (file name, context, config) of each model."""
    built = []

    class Model:
        def build_from_file(self, model_path, model_type, context=None, config_path="", config_dict=None):
            require("model_path", model_path, str)
            require("model_type", model_type, ModelType)
            require("context", context, Context)
            require("config_path", config_path, str)
            if not os.path.exists(model_path):
                raise RuntimeError("build_from_file failed, model_path does not exist!")
            if config_path and not os.path.exists(config_path):
                raise RuntimeError("build_from_file failed, config_path does not exist!")
            if not set(context.target) <= set(devices) or not model_path.endswith(".mindir"):
                raise RuntimeError("build_from_file failed! Error is Common error code.\nand more lines")
            self._graph = ModelProto.FromString(Path(model_path).read_bytes())
            self._folder = weights_folder(self._graph, Path(model_path).parent)
            self._inputs = [Tensor(*self._meta(row)) for row in inputs_of(self._graph)]
            built.append((Path(model_path).name, context, Path(config_path).read_text() if config_path else ""))

        @staticmethod
        def _meta(row):
            return row[0], list(row[1].dims), DataType[TYPES[row[1].data_type]]

        def get_inputs(self):
            return list(self._inputs)

        def get_outputs(self):
            return tuple(TensorMeta(*self._meta(row)) for row in outputs_of(self._graph))

        def predict(self, inputs, outputs=None):
            require("inputs", inputs, (list, tuple)[0])
            if len(inputs) != len(self._inputs):
                raise RuntimeError(f"model input len:{len(self._inputs)} not equal input len:{len(inputs)}!")
            for element in inputs:
                require("inputs element", element, Tensor)
            arrays = {tensor.name: tensor.data for tensor in inputs}
            made = interpreter.outputs(self._graph, self._folder, arrays, np.float32)
            results = [Tensor(*self._meta(row)) for row in outputs_of(self._graph)]
            for result, array in zip(results, made, strict=True):
                result.data = array
            return results

    module = types.ModuleType("mindspore_lite")
    vars(module).update(__version__=version, Context=Context, Model=Model, ModelType=ModelType, DataType=DataType, Tensor=Tensor,
                        TensorMeta=TensorMeta, built=built)
    return module
