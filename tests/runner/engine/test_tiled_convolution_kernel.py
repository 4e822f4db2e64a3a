"""Convolutions of a graph that bfloat16 computes by Winograd's algorithm: which they are, and what rounding explains."""

import numpy as np
import our_nodes
import pytest
from convolutions import Convolution, convolved
from kandinsky_mindir.models import winograd
from kandinsky_mindir.runner.engine.precision import lacking
from tiles import by_tiles

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())


class Case:
    """A convolution with random weights, and its `.ms` file."""

    def __init__(self, folder, engine, shape, filters, padding, stride=1, bias=True):
        random = np.random.default_rng(2)
        self.x = random.standard_normal(shape).astype(np.float32)
        self.weight = random.standard_normal((filters, 3, 3, shape[-1])).astype(np.float32)
        self.bias = random.standard_normal(filters).astype(np.float32) if bias else None
        self.how = stride, padding
        self.ms = our_nodes.written(folder, engine, lambda: Convolution(self.weight, self.bias, *self.how), [self.x])

    def rounded_plainly(self):
        """(The convolution in float64 of factors in bfloat16, the sum of the sizes of its terms)."""
        x, weight = our_nodes.rounded(self.x), our_nodes.rounded(self.weight)
        size = None if self.bias is None else np.abs(self.bias)
        return convolved(x, weight, self.bias, *self.how), convolved(np.abs(x), np.abs(weight), size, *self.how)


@pytest.mark.parametrize("shape, filters, padding", [
    ((2, 8, 12, 64), 80, (1, 1, 1, 1)),  # a border of zeros
    ((1, 10, 12, 80), 64, (0, 0, 1, 1)),  # rows that come with theirs, as bands of a picture do
    ((1, 14, 10, 96), 64, (0, 0, 0, 0)),
    ((1, 66, 34, 64), 512, (0, 0, 1, 1)),  # more tiles than are computed at once, and products in two parts
])  # fmt: skip
def test_right_to_what_rounding_the_factors_explains(shape, filters, padding, engine, tmp_path):
    case = Case(tmp_path, engine, shape, filters, padding)
    kernel = case.weight.transpose(0, 3, 1, 2)
    weights = {f"plain_{column}": winograd.filters(winograd.PLAIN, column)(kernel) for column in range(4)}
    expected, sizes = by_tiles(case.x.astype(np.float64), {**weights, "bias": case.bias}, 4, our_nodes.rounded, padding[::2])
    for threads in (1, 3):
        actual = our_nodes.run(case.ms, [case.x], "bfloat16", threads)
        # As in test_winograd_kernel.py.
        bound = (shape[-1] + 17) * 2.0**-24 * 1.01 * sizes
        near = np.abs(actual - expected) <= bound
        assert near.mean() > 0.99 and (np.abs(actual - expected) <= bound + 2.0**-8 * sizes).all()
    plain, _ = case.rounded_plainly()
    assert np.linalg.norm(actual - plain) > 1e-3 * np.linalg.norm(plain)  # by tiles, other numbers are rounded


@pytest.mark.parametrize("shape, filters, padding, more", [
    ((1, 7, 8, 64), 64, (1, 1, 1, 1), {}), ((1, 8, 9, 64), 64, (1, 1, 1, 1), {}),  # half a tile
    ((1, 8, 8, 48), 64, (1, 1, 1, 1), {}), ((1, 8, 8, 64), 48, (1, 1, 1, 1), {}),  # few channels
    ((1, 8, 8, 72), 64, (1, 1, 1, 1), {}), ((1, 8, 8, 64), 72, (1, 1, 1, 1), {}),  # vectors do not divide them
    ((1, 9, 9, 64), 64, (1, 1, 1, 1), {"stride": 2}), ((1, 8, 8, 64), 64, (1, 1, 1, 1), {"bias": False}),
    ((1, 9, 8, 64), 64, (0, 1, 1, 1), {}),  # a border on one side
])  # fmt: skip
def test_others_are_summed_plainly(shape, filters, padding, more, engine, tmp_path):
    case = Case(tmp_path, engine, shape, filters, padding, **more)
    expected, sizes = case.rounded_plainly()
    # As in test_convolution_kernel.py.
    bound = (9 * shape[-1] + 1) * 2.0**-24 * 1.01 * sizes
    assert (np.abs(our_nodes.run(case.ms, [case.x], "bfloat16", 2) - expected) <= bound).all()


def test_nothing_is_lost_of_a_nan(engine, tmp_path):
    case = Case(tmp_path, engine, (1, 6, 6, 64), 64, (1, 1, 1, 1))
    case.x[0, 3, 3, 5] = np.nan
    assert np.isnan(our_nodes.run(case.ms, [case.x], "bfloat16", 2)[0, 2:5, 2:5]).all()
