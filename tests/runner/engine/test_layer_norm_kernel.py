"""Layer norm as one node: found in the graph, and right to the rounding of float32."""

import itertools

import numpy as np
import our_nodes
import pytest
from kandinsky_mindir.models.layers import LayerNorm, constant
from mindspore import Parameter, Tensor, nn, ops

RANDOM = np.random.default_rng(11)
WEIGHT, BIAS = (RANDOM.standard_normal(200).astype(np.float32) for _ in range(2))


class Norm(nn.Cell):
    def __init__(self, width):
        super().__init__()
        self.norm = LayerNorm(width)
        self.norm.weight, self.norm.bias = (Parameter(Tensor(values[:width])) for values in (WEIGHT, BIAS))

    def construct(self, x):
        return self.norm(x)


def norm(x):
    width = x.shape[-1]
    deviation = x - x.mean(-1, keepdims=True)
    return deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 1e-5) * WEIGHT[:width] + BIAS[:width]


@pytest.mark.parametrize("shape", [(1, 7, 200), (2, 3, 16), (2, 1, 5)])
def test_right_to_rounding(shape, program, engine, tmp_path):
    x = (3 * RANDOM.standard_normal(shape) + 5).astype(np.float32)
    ms = our_nodes.written(tmp_path, engine, lambda: Norm(shape[-1]), [x])
    _, _, ours, _, after = our_nodes.count(program, ms)
    assert ours == after == 1
    expected = norm(x.astype(np.float64))
    # Numbers up to some 20 are rounded by 2^-24 some ten times; sums of up to 200 of them, in 16 parts, twenty times.
    bound = 2 * 30 * 2.0**-24 * 20
    for how in (*itertools.product(our_nodes.precisions(), (1, 3)), ("float32", 2, "lite")):
        assert np.abs(our_nodes.run(ms, [x], *how) - expected).max() < bound


class Other(nn.Cell):
    """What looks like it: means along another axis, or another square."""

    def __init__(self, axis, width, square):
        super().__init__()
        self.weight, self.bias = (Parameter(Tensor(values[:width])) for values in (WEIGHT, BIAS))
        self.mean, self.axis, self.square, self.eps = ops.ReduceMean(keep_dims=True), axis, square, constant(1e-5)

    def construct(self, x):
        y = x - self.mean(x, self.axis)
        variance = self.mean(y * (y if self.square else x), self.axis)
        return y / ops.sqrt(variance + self.eps) * self.weight + self.bias


@pytest.mark.parametrize("axis, square", [(1, True), (-1, False)])
def test_others_stay_as_they_are(axis, square, program, engine, tmp_path):
    x = RANDOM.standard_normal((1, 4, 16)).astype(np.float32)
    _, _, ours, before, after = our_nodes.count(program, our_nodes.written(tmp_path, engine, lambda: Other(axis, 16, square), [x]))
    assert ours == 0 and before == after
