"""Attention that becomes one node: found in the graph, and what rounding its factors and weights explains."""

import itertools

import numpy as np
import our_nodes
import pytest
from kandinsky_mindir.models.layers import Attention, merge_heads, split_heads
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


class OfHeads(nn.Cell):
    """Attention of tokens whose heads lie beside each other. more: keys and values that come before theirs."""

    def __init__(self, heads, depth, more):
        super().__init__()
        self.attention, self.heads, self.more = Attention(depth), heads, more

    def construct(self, q, k, v):
        q, k, v = split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)
        if self.more:
            k, v = ops.concat((k, k), 1), ops.concat((v, v), 1)
        return merge_heads(self.attention(q, k, v), self.heads)


@pytest.mark.parametrize("batch, tokens, seen, more, nodes", [
    # Three nodes turn the queries and one scales them; one shapes each of keys, values and the result.
    (1, 20, 20, False, 4 + 1 + 1 + 1 + 1), (2, 37, 50, False, 4 + 1 + 1 + 1 + 1),
    (2, 20, 9, True, 4 + 4 + 4 + 1 + 1),  # keys and values are turned, and then joined
])  # fmt: skip
def test_heads_are_read_and_written_where_they_lie(batch, tokens, seen, more, nodes, program, engine, tmp_path):
    heads, depth = 3, 24
    q, k, v = inputs = [normal(batch, tokens, heads * depth), *(normal(batch, seen, heads * depth) for _ in range(2))]
    ms = our_nodes.written(tmp_path, engine, lambda: OfHeads(heads, depth, more), inputs)
    _, found, ours, _, after = our_nodes.count(program, ms)
    assert (found, ours, after) == (1, 1, nodes)
    q, k, v = (array.reshape(batch, -1, heads, depth).transpose(0, 2, 1, 3).reshape(batch * heads, -1, depth) for array in (q, k, v))
    exact, sizes, _ = attention(q / np.sqrt(depth), k, v)  # what is seen twice weighs as what is seen once
    for precision, threads in itertools.product(our_nodes.precisions(), (1, 3)):
        actual = our_nodes.run(ms, inputs, precision, threads)
        actual = actual.reshape(batch, tokens, heads, depth).transpose(0, 2, 1, 3).reshape(batch * heads, tokens, depth)
        # In bfloat16 queries, keys, weights and values are rounded by 2^-9 each: some 2^-7 of what is summed. In float32 a score,
        # seldom larger than 4, is off by 2^-24 for each of its terms, and so is the sum of values. Heads or tokens in another
        # order are off by as much as there is.
        bound = 2.0**-6 if precision == "bfloat16" else (4 * (depth + 1) + 2 * seen + 2) * 2.0**-24
        assert np.linalg.norm(actual - exact) < bound * np.linalg.norm(sizes)


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
