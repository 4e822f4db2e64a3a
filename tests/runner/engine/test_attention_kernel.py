"""Attention that becomes one node: found in the graph, and what rounding its factors and weights explains."""

import itertools

import numpy as np
import our_nodes
import pytest
from kandinsky_mindir.models.layers import Attention
from mindspore import nn, ops

RANDOM = np.random.default_rng(3)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def causal(tokens):
    return np.triu(np.full((1, tokens, tokens), -1e4, np.float32), 1)


# Heads, tokens, tokens seen, depth, what is added to the scores: blocks of queries and vectors of scores that fit and do not.
CASES = {
    "an encoder's, of images": (4, 257, 257, 40, None),
    "an encoder's, of texts": (3, 77, 77, 32, causal(77)),
    "one for each head": (4, 3, 81, 32, normal(4, 3, 81)),
    "of pixels and image tokens": (2, 64, 74, 64, None),
    "many seen": (1, 500, 3000, 16, None),
    "one token": (2, 1, 1, 8, None),
}


class Attends(nn.Cell):
    def __init__(self, depth):
        super().__init__()
        self.attention = Attention(depth)

    def construct(self, q, k, v, bias=None):
        return self.attention(q, k, v, bias)


def inputs_of(heads, tokens, seen, depth, bias):
    return [normal(heads, tokens, depth), normal(heads, seen, depth), normal(heads, seen, depth), *([] if bias is None else [bias])]


def attention(q, k, v, bias=0.0):
    """(In float64: the result, and what it would be of the values' sizes.)"""
    scores = np.einsum("htd,hsd->hts", q.astype(np.float64), k) + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ v, weights @ np.abs(v), np.abs(q).astype(np.float64).max() * np.abs(k).max() * q.shape[-1]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_right_to_what_rounding_explains(case, program, engine, tmp_path):
    inputs = inputs_of(*case)
    ms = our_nodes.written(tmp_path, engine, lambda: Attends(case[3]), inputs)
    _, found, ours, _, _ = our_nodes.count(program, ms)
    assert (found, ours) == (1, 1)
    q, k, v, *bias = inputs
    scaled = q * np.float32(1 / np.sqrt(case[3]))
    exact, _, _ = attention(scaled, k, v, *bias)
    for precision, threads in itertools.product(our_nodes.precisions(), (1, 3)):
        narrow = precision == "bfloat16"
        expected, sizes, largest = attention(*map(our_nodes.rounded if narrow else np.asarray, (scaled, k, v)), *bias)
        # A score is a sum of depth products in float32: it is off by depth + 1 roundings of 2^-24, and so, relatively, is the
        # power of it, which is computed to 2^-22. A weight is rounded by 2^-9 in bfloat16, above and below the
        # line of the mean.
        bound = 2 * (narrow * 2.0**-9 + (case[3] + 1) * 2.0**-24 * largest + 2.0**-22 + (case[2] + 2) * 2.0**-24) * sizes
        assert (np.abs(our_nodes.run(ms, inputs, precision, threads) - expected) <= 1.01 * bound).all()
    assert np.linalg.norm(our_nodes.run(ms, inputs, "float32", 2, "lite") - exact) < 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("place", ["queries", "keys", "values"])
def test_nothing_is_lost_of_a_nan(place, engine, tmp_path):
    inputs = inputs_of(2, 20, 20, 16, None)
    ms = our_nodes.written(tmp_path, engine, lambda: Attends(16), inputs)
    inputs[["queries", "keys", "values"].index(place)][1, 7, 3] = np.nan
    for precision in our_nodes.precisions():
        actual = our_nodes.run(ms, inputs, precision, 2)
        where = {"queries": actual[1, 7], "keys": actual[1], "values": actual[1, :, 3]}[place]
        assert np.isnan(where).all() and np.isfinite(actual[0]).all()


class Scores(nn.Cell):
    """Not attention: the softmax is over another axis, or what it makes is multiplied on the other side."""

    def __init__(self, axis, transposed):
        super().__init__()
        self.softmax = ops.Softmax(axis)
        self.scores, self.mix = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul(transpose_b=transposed)

    def construct(self, q, k, v):
        return self.mix(self.softmax(self.scores(q, k)), v)


@pytest.mark.parametrize("axis, transposed", [(1, False), (-1, True)])
def test_others_stay_as_they_are(axis, transposed, program, engine, tmp_path):
    inputs = [normal(2, 16, 16) for _ in range(3)]
    ms = our_nodes.written(tmp_path, engine, lambda: Scores(axis, transposed), inputs)
    _, found, ours, before, after = our_nodes.count(program, ms)
    assert (found, ours) == (0, 0) and before == after
