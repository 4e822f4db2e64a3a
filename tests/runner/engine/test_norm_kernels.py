"""The passes of a group norm that become nodes: found in the graph, and right to the rounding of float32."""

import itertools

import numpy as np
import our_nodes
import pytest
from kandinsky_mindir.models.layers import GroupNorm, SiLU
from kandinsky_mindir.models.targets.lite_norms import blockwise_affine
from mindspore import Parameter, Tensor, nn

RANDOM = np.random.default_rng(5)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


class Norm(nn.Cell):
    def __init__(self, groups, channels, activated):
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.norm.weight, self.norm.bias = (Parameter(Tensor(values)) for values in (WEIGHT[:channels], BIAS[:channels]))
        self.act = SiLU() if activated else None

    def construct(self, x):
        x = self.norm(x)
        return x if self.act is None else self.act(x)


WEIGHT, BIAS = normal(64), normal(64)


def norm(x, groups, channels, activated):
    batch, height, width, _ = x.shape
    grouped = x.astype(np.float64).reshape(batch, height * width, groups, channels // groups)
    mean, variance = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    result = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * WEIGHT[:channels] + BIAS[:channels]
    return result / (1 + np.exp(-result)) if activated else result


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("shape, groups", [((2, 5, 7, 32), 4), ((1, 16, 3, 64), 32), ((3, 1, 2, 16), 2)])
def test_right_to_rounding(shape, groups, activated, program, engine, tmp_path):
    x = 3 * normal(*shape) + 5
    ms = our_nodes.written(tmp_path, engine, lambda: Norm(groups, shape[-1], activated), [x])
    _, _, ours, before, after = our_nodes.count(program, ms)
    assert ours == 2 and after < before
    expected = norm(x, groups, shape[-1], activated)
    for precision, threads in itertools.product(our_nodes.precisions(), (1, 3)):
        actual = our_nodes.run(ms, [x], precision, threads)
        # Numbers up to some 20 are rounded by 2^-24 some ten times, sums of up to 160 of them by less than that each.
        assert np.abs(actual - expected).max() < 200 * 2.0**-24 * 20
    assert np.abs(our_nodes.run(ms, [x], "float32", 2, "lite") - expected).max() < 200 * 2.0**-24 * 20


class Blocks(nn.Cell):
    """What a norm by latents does to its picture."""

    def __init__(self, activated):
        super().__init__()
        self.act = SiLU() if activated else None

    def construct(self, x, scale, shift):
        x = blockwise_affine(x, scale, shift)
        return x if self.act is None else self.act(x)


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("shape, factor", [((2, 3, 4, 16), 1), ((2, 3, 5, 16), 2), ((1, 2, 1, 48), 4)])
def test_numbers_of_blocks(shape, factor, activated, program, engine, tmp_path):
    batch, height, width, channels = shape
    x, scale, shift = 3 * normal(batch, height * factor, width * factor, channels), normal(*shape), normal(*shape)
    ms = our_nodes.written(tmp_path, engine, lambda: Blocks(activated), [x, scale, shift])
    _, _, ours, before, after = our_nodes.count(program, ms)
    assert ours == 1 and after < before
    wide, added = (each.repeat(factor, 1).repeat(factor, 2).astype(np.float64) for each in (scale, shift))
    sizes = np.abs(x * wide) + np.abs(added)
    expected = x * wide + added
    if activated:
        expected /= 1 + np.exp(-expected)
    for precision, threads in itertools.product(our_nodes.precisions(), (1, 3)):
        error = np.abs(our_nodes.run(ms, [x, scale, shift], precision, threads) - expected)
        # A product and a sum are rounded, which an activation makes 1.1 times as large at most; then come some ten roundings.
        assert (error <= 1.1 * 2.0**-23 * sizes + 2.0**-20 * np.abs(expected)).all()


class Affine(nn.Cell):
    def __init__(self):
        super().__init__()
        self.act = SiLU()

    def construct(self, x, scale, shift):
        return self.act(x * scale + shift)


def test_far_from_zero(program, engine, tmp_path):
    """A sigmoid of what is large is 0 or 1, and a NaN stays one."""
    inputs = [normal(1, 4, 4, 16), np.ones((1, 1, 1, 16), np.float32), np.zeros((1, 1, 1, 16), np.float32)]
    ms = our_nodes.written(tmp_path, engine, Affine, inputs)
    _, _, ours, _, after = our_nodes.count(program, ms)
    assert ours == after == 1
    values = np.array([-2e4, -200, -100, -90, -30, -1e-3, -0.0, 0, 1e-3, 30, 90, 100, 200, 2e4, np.nan, np.inf], np.float32)
    inputs[0][0, 1, 1] = values
    with np.errstate(over="ignore", invalid="ignore"):
        value = values.astype(np.float64)
        expected = value / (1 + np.exp(-value))
    for precision in our_nodes.precisions():
        actual = our_nodes.run(ms, inputs, precision, 2)[0, 1, 1]
        assert np.isnan(actual[14]) and actual[15] == np.inf
        assert np.allclose(actual[:14], expected[:14], rtol=2.0**-20, atol=1e-37)


@pytest.mark.parametrize("channels", [24, 8])
def test_other_widths_stay_as_they_are(channels, program, engine, tmp_path):
    x = normal(1, 4, 4, channels)
    _, _, ours, before, after = our_nodes.count(program, our_nodes.written(tmp_path, engine, lambda: Norm(4, channels, True), [x]))
    assert ours == 0 and before == after
