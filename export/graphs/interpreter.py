"""What a graph computes, from the MindIR that MindSpore wrote, operator by operator in NumPy.

A path to a graph's numbers that shares nothing with MindSpore's kernels, the lowering or Lite, and that a full-size
graph can take (MindSpore's own convolutions run at 0.6 GFLOP/s on a CPU). Its float64 results are the truth that the
sealed examples hold; its float32 results say what rounding alone costs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mindspore.train.mind_ir_pb2 import AttributeProto, GraphProto, ModelProto, NodeProto, PrimitiveProto, TensorProto

from ...runner.bundle.stored.wide_file import WideWeights, open_weights
from ...runner.common.errors import UserError
from .node_layers import CONSTANT, REFERENCE, operator_of

# What NumPy and Python raise where an operator does not fit what it is given
UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
# A large picture's maps would fill the memory twice, in both types. Those that wait for a later layer lie on disk.
LARGE = 2**24  # bytes
SOON = 32  # nodes: what is used within so many stays in memory
DTYPES = {TensorProto.FLOAT: "<f4", TensorProto.INT32: "<i4", TensorProto.INT64: "<i8", TensorProto.BOOL: "?"}


def evaluate(
    model: ModelProto, folder: Path, inputs: Mapping[str, np.ndarray], dtype: type = np.float64
) -> Iterator[tuple[NodeProto, Any]]:
    """Each node of a MindIR 3 graph with its value, in the graph's order; a value is freed after its last use.

    folder: where the weight files lie that the graph refers to. inputs: by name. dtype: of all real numbers. A node's
    value is an array, for MakeTuple a tuple of arrays. UserError names an operator, or an option of it, that is not
    known here.
    """
    graph = model.graph
    operators = {REFERENCE + primitive.name: primitive for primitive in model.primitives}
    nodes = _needed(graph)
    last_use = {name: index for index, node in enumerate(nodes) for name in _operands(node)}
    values = {}
    for value in graph.input:
        if (name := value.name.partition(":")[2]) not in inputs:
            raise UserError(f"the graph takes {name!r}, which nobody gives: export the bundle again")
        values[value.name] = inputs[name]
    values |= {parameter.name: _weight(parameter, folder) for parameter in graph.parameter}
    for index, node in enumerate(nodes):
        try:
            if node.op_type == CONSTANT:
                value = _constant(node.attribute[0])
            else:
                value = _apply(node, operators[node.op_type], [values[name] for name in _operands(node)], dtype)
        except UserError:
            raise
        except UNFIT as error:
            where = f"{node.doc_string or node.domain}: operator {operator_of(node)}"
            raise UserError(f"{where} cannot be evaluated: {error}") from error
        waits = last_use.get(node.output[0], index) - index > SOON
        values[node.output[0]] = value = _in_a_file(value) if waits else value
        yield node, value
        for name in {*_operands(node), *node.output}:
            if last_use.get(name, index) <= index:
                del values[name]


def outputs(
    model: ModelProto, folder: Path, inputs: Mapping[str, np.ndarray], dtype: type = np.float64
) -> list[np.ndarray]:
    """The outputs of a graph; see `evaluate`."""
    last = model.graph.output[0].name
    result = next(value for node, value in evaluate(model, folder, inputs, dtype) if node.name == last)
    return list(result) if isinstance(result, tuple) else [result]


def _in_a_file(value: Any) -> Any:
    """A large array, read from a temporary file that goes away with it; as it is where none can be written."""
    if not isinstance(value, np.ndarray) or value.nbytes < LARGE:
        return value
    try:
        with tempfile.TemporaryFile() as file:
            value.tofile(file)
            return np.memmap(file, value.dtype, "r", shape=value.shape)
    except OSError:  # a full disk is no reason to lose an export
        return value


def _operands(node: NodeProto) -> Sequence[str]:
    """The inputs that make the node's value. A Depend has another: the state after every Load, which would keep all
    weights in memory."""
    return node.input[:1] if operator_of(node) == "Depend" else node.input


def _needed(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the outputs are made of, in the graph's order."""
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):
        if node.name in needed:
            needed.update(_operands(node))
    return [node for node in graph.node if node.name in needed]


def _apply(node: NodeProto, primitive: PrimitiveProto, operands: list, dtype: type):
    if primitive.op_type not in OPERATORS:
        raise UserError(f"{node.doc_string or node.domain}: operator {primitive.op_type} is not known to the interpreter "
                        "that computes the sealed examples")
    attributes = {}
    if primitive.prim_type != PrimitiveProto.PRIMITIVE_FUNCTION:  # a function has them among its operands
        attributes = {attribute.name: _constant(attribute) for attribute in primitive.attribute}
    if primitive.op_type == "Load":  # a weight takes the other type where it is used: it may be used much later
        return operands[0]
    with np.errstate(over="ignore"):  # a sigmoid's exp of a large number is infinite, and the sigmoid then 0
        return OPERATORS[primitive.op_type](*(_cast(operand, dtype) for operand in operands), **attributes)


class _Stored(NamedTuple):
    """A weight that is made each time it is used, of what is stored: all of them at once would fill the memory."""

    weights: WideWeights
    start: int
    length: int
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        return self.weights[self.start : self.start + self.length].view("<f4").reshape(self.shape)


def _cast(operand, dtype):
    if isinstance(operand, _Stored):
        operand = operand.read()
    if isinstance(operand, tuple):
        return tuple(_cast(item, dtype) for item in operand)
    is_real = isinstance(operand, np.ndarray) and np.issubdtype(operand.dtype, np.floating)
    return operand.astype(dtype, copy=False) if is_real else operand


def _weight(parameter: TensorProto, folder: Path) -> np.ndarray | _Stored:
    place, shape = parameter.external_data, tuple(parameter.dims)
    try:
        weights = open_weights(folder / place.location)
        if isinstance(weights, WideWeights) and place.offset + place.length <= weights.size:
            return _Stored(weights, place.offset, place.length, shape)
        return weights[place.offset : place.offset + place.length].view("<f4").reshape(shape)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / place.location} does not hold {parameter.name}: {error}") from error


def _constant(attribute: AttributeProto) -> Any:
    """The Python value or array of a constant or an attribute."""
    kind = attribute.type
    if kind in (AttributeProto.TUPLE, AttributeProto.LIST):
        return tuple(_constant(value) for value in attribute.values)
    if kind == AttributeProto.TENSORS:
        (tensor,) = attribute.tensors
        return np.frombuffer(tensor.raw_data, DTYPES[tensor.data_type]).reshape(tuple(tensor.dims))
    if kind == AttributeProto.STRING:
        return (attribute.s or attribute.strings[0]).decode()
    if kind in (AttributeProto.INT64, AttributeProto.INT32, AttributeProto.BOOL):
        return attribute.ints[0] if attribute.ints else attribute.i
    if kind == AttributeProto.FLOAT:
        return attribute.floats[0] if attribute.floats else attribute.f
    return None


# The operators. Arguments are those of MindSpore's operator of the same name, in its order.

ERF_STEP = 2.0**-8


@cache
def _erf_table() -> tuple[np.ndarray, np.ndarray]:
    """erf and its derivative on a grid over [0, 6], beyond which erf is 1 in float64."""
    grid = np.arange(0, 6 + 2 * ERF_STEP, ERF_STEP)
    return np.array([math.erf(x) for x in grid]), 2 / math.sqrt(math.pi) * np.exp(-(grid**2))


def erf(x: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation: off by step^4 / 384 times the fourth derivative (at most 10), that is 6e-12."""
    values, slopes = _erf_table()
    position = np.minimum(np.abs(x.astype(np.float64)), 6) / ERF_STEP
    index = position.astype(np.intp)
    t = position - index
    left, right = values[index], values[index + 1]
    slope_left, slope_right = slopes[index] * ERF_STEP, slopes[index + 1] * ERF_STEP
    cubic = left + t * (slope_left + t * (3 * (right - left) - 2 * slope_left - slope_right
                                          + t * (2 * (left - right) + slope_left + slope_right)))
    return np.copysign(cubic, x).astype(x.dtype)


def softmax(x: np.ndarray, axis) -> np.ndarray:
    weights = x - x.max(axis, keepdims=True)
    np.exp(weights, out=weights)  # in place: the scores of a large picture's attention take gigabytes
    weights /= weights.sum(axis, keepdims=True)
    return weights


def sigmoid(x: np.ndarray) -> np.ndarray:
    result = np.negative(x)
    np.exp(result, out=result)
    result += 1
    return np.divide(1, result, out=result)


def matmul(a: np.ndarray, b: np.ndarray, transpose_a: bool, transpose_b: bool) -> np.ndarray:
    return np.matmul(a.swapaxes(-1, -2) if transpose_a else a, b.swapaxes(-1, -2) if transpose_b else b)


def slice_(x: np.ndarray, begin, size) -> np.ndarray:
    return x[tuple(slice(start, None if length == -1 else start + length) for start, length in zip(begin, size))]


def broadcast_to(x: np.ndarray, shape) -> np.ndarray:
    kept = (1,) * (len(shape) - x.ndim) + x.shape  # -1 keeps a side
    return np.broadcast_to(x, [old if new == -1 else new for old, new in zip(kept, shape)])


def gather(x: np.ndarray, indices: np.ndarray, axis: int, batch_dims: int) -> np.ndarray:
    _require(batch_dims == 0, "batch_dims", batch_dims)
    return np.take(x, indices, axis)


def bias_add(x: np.ndarray, bias: np.ndarray, data_format: int) -> np.ndarray:
    _require(data_format == 0, "format", data_format)
    return x + bias.reshape((-1,) + (1,) * (x.ndim - 2))


def conv2d(
    x: np.ndarray, weight: np.ndarray, *, pad_mode, pad_list, stride, dilation, group, format, **_
) -> np.ndarray:
    """A sum over the kernel's places, each a matrix product: nothing larger than the picture is made."""
    _require((pad_mode, format, group, dilation) == ("pad", "NCHW", 1, (1, 1, 1, 1)),
             "pad_mode, format, group, dilation", (pad_mode, format, group, dilation))
    top, bottom, left, right = pad_list
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (down, across), (filters, _, kernel_height, kernel_width) = stride[2:], weight.shape
    batch, channels, padded_height, padded_width = x.shape
    height, width = (padded_height - kernel_height) // down + 1, (padded_width - kernel_width) // across + 1
    result = np.zeros((batch, filters, height * width), x.dtype)
    for row, column in np.ndindex(kernel_height, kernel_width):
        seen = x[:, :, row : row + height * down : down, column : column + width * across : across]
        result += np.ascontiguousarray(weight[:, :, row, column]) @ seen.reshape(batch, channels, height * width)
    return result.reshape(batch, filters, height, width)


def _require(condition: bool, name: str, value) -> None:
    if not condition:
        raise ValueError(f"{name} {value} is not known to the interpreter")


OPERATORS: dict[str, Any] = {
    "Depend": lambda value, **_: value,
    "Load": lambda value, *_: value,
    "MakeTuple": lambda *values, **_: values,
    "Add": np.add,
    "BatchMatMul": matmul,
    "BiasAdd": bias_add,
    "BroadcastTo": broadcast_to,
    "Concat": np.concatenate,
    "Conv2D": conv2d,
    "Div": np.divide,
    "Erf": erf,
    "Gather": gather,
    "MatMul": matmul,
    "Mul": np.multiply,
    "ReduceMean": lambda x, axis, keep_dims: x.mean(axis, keepdims=bool(keep_dims)),
    "Reshape": np.reshape,
    "Sigmoid": sigmoid,
    "Slice": slice_,
    "Softmax": softmax,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Transpose": np.transpose,
}
