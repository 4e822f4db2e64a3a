"""Cells of one operator each, with inputs and what NumPy says of them in float64."""

import math
from typing import NamedTuple

import numpy as np
from kandinsky_mindir.export.graphs.mindir import compile_graph
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

EXACT = 0.0
# One operation rounds once, by half a unit in the last place at most; a sum of n terms, n times.
ROUNDED = 2.0**-24
# Lite's own polynomials for exp and its relatives: held to what a whole graph must keep.
GRAPH = 1e-5


class Call(nn.Cell):
    """operator(*inputs, *arguments), or operator(inputs as one tuple)."""

    def __init__(self, operator, *arguments, packed=False):
        super().__init__()
        self.operator, self.arguments, self.packed = operator, arguments, packed

    def construct(self, *inputs):
        return self.operator(inputs) if self.packed else self.operator(*inputs, *self.arguments)


class Layer(nn.Cell):
    """One operator in a layer that has a name, and another operator behind it."""

    class Inner(nn.Cell):
        def __init__(self, operator):
            super().__init__()
            self.operator = operator

        def construct(self, *inputs):
            return self.operator(*inputs)

    def __init__(self, operator):
        super().__init__()
        self.inner = self.Inner(operator)

    def construct(self, *inputs):
        return ops.reshape(self.inner(*inputs), (-1,))


class Stateful(nn.Cell):
    """Parameters are loaded, and two outputs depend on that."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(shape=(4,), dtype=mstype.float32))

    def construct(self, x):
        return x + self.weight, x


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape):
    return np.abs(random(*shape)) + np.float32(0.1)


def softmax(x):
    weights = np.exp(x - x.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def windows(x, height, width, stride):
    """(batch, channels, rows, columns, height, width): what a sliding window sees."""
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), (2, 3))[:, :, ::stride, ::stride]


def convolution(x, weight):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.einsum("bihwyx,oiyx->bohw", windows(padded, 3, 3, 2), weight)


class Case(NamedTuple):
    operator: str
    cell: nn.Cell
    inputs: list
    expected: object       # of the inputs in float64
    tolerance: float       # relative L2 error


X, IMAGE, IDS = random(2, 3, 4), random(2, 3, 6, 6), np.array([[2, 0]], np.int32)
ERF = np.vectorize(math.erf)
CASES = [
    Case("Add", Call(ops.Add()), [random(2, 1, 4, 1, 3), random(1, 3, 4, 5, 1)], np.add, ROUNDED),
    Case("BatchMatMul", Call(ops.BatchMatMul()), [X, random(2, 4, 5)], np.matmul, 4 * ROUNDED),
    Case("BatchMatMul", Call(ops.BatchMatMul(transpose_b=True)), [random(2, 3, 4, 5), random(2, 3, 6, 5)],
         lambda a, b: a @ b.swapaxes(2, 3), 5 * ROUNDED),
    Case("BatchMatMul", Call(ops.BatchMatMul(transpose_a=True)), [X, random(2, 3, 5)],
         lambda a, b: a.swapaxes(1, 2) @ b, 3 * ROUNDED),
    Case("BiasAdd", Call(ops.BiasAdd()), [IMAGE, random(3)], lambda x, b: x + b[:, None, None], ROUNDED),
    Case("BroadcastTo", Call(ops.BroadcastTo((2, 3, 4, 5, 6))), [random(2, 3, 1, 5, 1)],
         lambda x: np.broadcast_to(x, (2, 3, 4, 5, 6)), EXACT),
    Case("Concat", Call(ops.Concat(-2), packed=True), [random(2, 3, 4), random(2, 5, 4)],
         lambda *x: np.concatenate(x, -2), EXACT),
    # A convolution may be computed by way of Winograd's transform, whose rounding grows: the graph's limit.
    Case("Conv2D", Call(ops.Conv2D(5, 3, pad_mode="pad", pad=1, stride=2)), [IMAGE, random(5, 3, 3, 3)], convolution,
         GRAPH),
    Case("Div", Call(ops.Div()), [X, positive(2, 3, 1)], np.divide, ROUNDED),
    Case("Erf", Call(ops.Erf()), [X], ERF, GRAPH),
    Case("Gather", Call(ops.Gather(), 0), [random(9, 4), IDS], lambda x, ids: x[ids.astype(int)], EXACT),
    Case("Gather", Call(ops.Gather(), 1), [X, IDS], lambda x, ids: x[:, ids.astype(int)], EXACT),
    Case("MatMul", Call(ops.MatMul()), [random(2, 7), random(7, 3)], np.matmul, 7 * ROUNDED),
    Case("MatMul", Call(ops.MatMul(transpose_b=True)), [random(2, 7), random(3, 7)], lambda a, b: a @ b.T, 7 * ROUNDED),
    Case("MatMul", Call(ops.MatMul(transpose_a=True)), [random(7, 2), random(7, 3)], lambda a, b: a.T @ b, 7 * ROUNDED),
    Case("Mul", Call(ops.Mul()), [random(2, 1, 4, 1), random(1, 3, 4, 5)], np.multiply, ROUNDED),
    Case("ReduceMean", Call(ops.ReduceMean(keep_dims=True), (1, 3)), [positive(2, 3, 4, 5)],
         lambda x: x.mean((1, 3), keepdims=True), 15 * ROUNDED),
    Case("ReduceMean", Call(ops.ReduceMean(), -2), [positive(2, 3, 4, 5)], lambda x: x.mean(-2), 4 * ROUNDED),
    Case("Reshape", Call(ops.Reshape(), (3, -1)), [X], lambda x: x.reshape(3, -1), EXACT),
    Case("Sigmoid", Call(ops.Sigmoid()), [X], lambda x: 1 / (1 + np.exp(-x)), GRAPH),
    Case("Slice", Call(ops.Slice(), (0, 1, 2), (2, 2, 1)), [X], lambda x: x[:, 1:3, 2:3], EXACT),
    Case("Softmax", Call(ops.Softmax(1)), [X], softmax, GRAPH),
    Case("Sqrt", Call(ops.Sqrt()), [positive(2, 3)], np.sqrt, ROUNDED),
    Case("Sub", Call(ops.Sub()), [X, random(4)], np.subtract, ROUNDED),
    Case("Transpose", Call(ops.Transpose(), (0, 3, 1, 4, 2)), [random(2, 3, 4, 5, 2)],
         lambda x: x.transpose(0, 3, 1, 4, 2), EXACT),
]


def compiled(cell, inputs, index=None, outputs=("output",)):
    names = [f"input_{position}" for position in range(len(inputs))]
    specs = [(name, array.shape, array.dtype.name) for name, array in zip(names, inputs)]
    return compile_graph(cell, specs, outputs, index or {}, "weights.bin")
