"""A MindSpore cell to MindIR: compiled in graph mode by MindSpore's own export, its weights left in a shared file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mindspore
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from .weights import Location

DTYPES = {"float32": mindspore.float32, "int32": mindspore.int32}


def compile_graph(
    cell: mindspore.nn.Cell,
    inputs: Sequence[tuple[str, tuple[int, ...], str]],
    weights: Mapping[str, Location],
    weights_location: str,
) -> ModelProto:
    """The MindIR of `cell` for static shapes, as MindSpore writes it, with parameters that point into a weight file.

    inputs: (name, shape, dtype) in the order of the cell's ``construct``, whose argument names they bear. weights: where each
    parameter lies; weights_location: the weight file's path, relative to the graph's file. The cell's own parameter
    values are neither made nor read.
    """
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    captured = ModelProto()

    def capture(model: ModelProto) -> None:
        """Called by mindspore.export before it adds the weights, which then has none to add."""
        captured.CopyFrom(model)
        del model.graph.parameter[:]

    tensors = [mindspore.Tensor(shape=shape, dtype=DTYPES[dtype], init=0) for _, shape, dtype in inputs]
    with tempfile.TemporaryDirectory() as folder:
        name = str(Path(folder, "graph"))
        mindspore.export(cell.set_train(False), *tensors, file_name=name, file_format="MINDIR", custom_func=capture)
    _check_inputs(captured, [name for name, *_ in inputs])
    for parameter in captured.graph.parameter:
        _point(parameter, weights, weights_location)
    return captured


def output_shapes(model: ModelProto) -> list[tuple[int, ...]]:
    """The shape of each output of a graph; several come as one tuple."""
    output = model.graph.output[0]
    tensors = [value.tensors[0] for value in output.attr_info.values] or list(output.tensor)
    return [tuple(tensor.dims) for tensor in tensors]


def _point(parameter: TensorProto, weights: Mapping[str, Location], location: str) -> None:
    """Make `parameter` refer to its place in the weight file."""
    name = _bare(parameter.name)
    place = weights[name]
    if tuple(parameter.dims) != place.shape:
        raise ValueError(f"{name} is {list(parameter.dims)} in the graph and {list(place.shape)} in the weight file")
    parameter.external_data.location = location
    parameter.external_data.offset = place.offset
    parameter.external_data.length = place.length


def _check_inputs(model: ModelProto, names: Sequence[str]) -> None:
    """A graph's inputs bear the names of the arguments of ``construct``: they must be those the manifest will promise."""
    found = [_bare(tensor.name) for tensor in model.graph.input]
    if found != list(names):
        raise ValueError(f"the graph's inputs are {found}, not {list(names)}: construct must take exactly these")


def _bare(name: str) -> str:
    """MindSpore writes the graph's name before each of its parameters: "graph:name"."""
    return name.rsplit(":", 1)[-1]
