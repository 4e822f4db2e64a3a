"""GELU as one node: found in the graph, and right to the rounding of float32."""

import itertools
import math

import numpy as np
import our_nodes
import pytest
from kandinsky_mindir.models.layers import GELU, constant
from mindspore import nn, ops

RANDOM = np.random.default_rng(7)


def gelu(x):
    return x * np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2


@pytest.mark.parametrize("shape", [(1, 77, 40), (1, 3, 5), (2, 1, 1)])
def test_right_to_rounding(shape, program, engine, tmp_path):
    x = (4 * RANDOM.standard_normal(shape)).astype(np.float32)
    x.flat[:2] = 0, -14
    ms = our_nodes.written(tmp_path, engine, GELU, [x])
    _, _, ours, _, after = our_nodes.count(program, ms)
    assert ours == after == 1
    expected = gelu(x.astype(np.float64))
    for precision, threads in itertools.product(our_nodes.precisions(), (1, 3)):
        # The formula is off by 0.75e-7 of x; some eight roundings of 2^-24 of what is at most x come to it: 5.5e-7 in all.
        assert (np.abs(our_nodes.run(ms, [x], precision, threads) - expected) <= 2.0**-20 * np.abs(x)).all()


def test_far_from_zero(engine, tmp_path):
    values = np.array([[np.nan, np.inf, -1e30, 1e30, -40, 40, -0.0]], np.float32)
    ms = our_nodes.written(tmp_path, engine, GELU, [values])
    for precision in our_nodes.precisions():
        actual = our_nodes.run(ms, [values], precision, 2)[0]
        assert np.isnan(actual[0])
        assert actual[1:].tolist() == [np.inf, 0, values[0, 3], 0, 40, 0]


class Other(nn.Cell):
    """What looks like it."""

    def __init__(self, root, half, one):
        super().__init__()
        self.root, self.half, self.one = constant(root), constant(half), constant(one)

    def construct(self, x):
        return x * self.half * (ops.erf(x * self.root) + self.one)


@pytest.mark.parametrize("numbers", [(0.7, 0.5, 1.0), (math.sqrt(0.5), 0.6, 1.0), (math.sqrt(0.5), 0.5, 2.0)])
def test_other_numbers_stay_as_they_are(numbers, program, engine, tmp_path):
    x = RANDOM.standard_normal((1, 4, 8)).astype(np.float32)
    _, _, ours, before, after = our_nodes.count(program, our_nodes.written(tmp_path, engine, lambda: Other(*numbers), [x]))
    assert ours == 0 and before == after
