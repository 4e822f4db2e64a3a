"""Products: what oneDNN computes under Lite is what rounding the factors and sums explains, for products of every kind."""

import numpy as np
import our_nodes
import pytest
import small_graph
from kandinsky_mindir.runner import UserError, engine
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.engine.bridge import BridgeEngine
from mindspore import Parameter, Tensor, nn, ops

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


# Name, left, right, its transposition, whether the right is a weight: rows and columns that blocks divide and do not.
CASES = [
    ("a dense layer", normal(2, 77, 64), normal(64, 96), False, True),
    ("its transposed weight", normal(2, 77, 64), normal(96, 64), True, True),
    ("one row", normal(1, 64), normal(64, 1100), False, True),
    ("many rows, few columns", normal(4000, 48), normal(48, 8), False, True),
    ("a large weight", normal(300, 700), normal(700, 530), False, True),
    ("blocks of many rows beside their place", normal(300, 32), normal(32, 1100), False, True),
    ("weights in a batch", normal(36, 20, 64), normal(36, 64, 40), False, True),
    ("a batch of few", normal(3, 500, 32), normal(3, 32, 200), False, True),
    ("scores of attention", normal(2, 6, 50, 32), normal(2, 6, 70, 32), True, False),
    ("values of attention", normal(2, 6, 50, 70), normal(2, 6, 70, 32), False, False),
    ("one head", normal(1, 1, 600, 32), normal(1, 1, 32, 600), False, False),
]


def product(left, right, transposed):
    right = right.astype(np.float64)
    return left.astype(np.float64) @ (np.swapaxes(right, -1, -2) if transposed else right)


class Products(nn.Cell):
    def __init__(self):
        super().__init__()
        for number, (_, _, right, _, weight) in enumerate(CASES):
            if weight:
                setattr(self, f"w{number}", Parameter(Tensor(right)))
        self.plain, self.transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)
        self.matrix, self.matrix_transposed = ops.MatMul(), ops.MatMul(transpose_b=True)
        self.add = ops.BiasAdd()
        self.bias = Parameter(Tensor(BIAS), name="bias")

    def construct(self, a, b, c, d, e, f, g, h, i, j, k, i_right, j_right, k_right):
        return (
            self.add(self.matrix(a.reshape(154, 64), self.w0), self.bias), self.matrix_transposed(b.reshape(154, 64), self.w1),
            self.matrix(c, self.w2), self.matrix(d, self.w3), self.matrix(e, self.w4), self.matrix(f, self.w5),
            self.plain(g, self.w6), self.plain(h, self.w7),
            self.transposed(i, i_right), self.plain(j, j_right), self.plain(k, k_right),
        )  # fmt: skip


BIAS = normal(96)
INPUTS = [left for _, left, *_ in CASES] + [right for _, _, right, _, weight in CASES if not weight]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, engine):
    """A function from a precision, threads and kernels to those of the graph of all cases."""
    folder = small_graph.write(tmp_path_factory.mktemp("products"), Products, lambda: INPUTS)
    engine.convert(folder / "lowered.mindir", folder / "graph.ms")
    found = {}

    def outputs(*how):
        if how not in found:
            with our_nodes.loaded(folder / "graph.ms", *how) as model:
                found[how] = model.run(INPUTS)
        return found[how]

    return outputs


ROUNDED = {"float32": np.asarray, "bfloat16": our_nodes.rounded}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, *_ in CASES])
def test_right_to_the_rounding_of_factors_and_sums(outputs, number, threads):
    _, left, right, transposed, _ = CASES[number]
    bias = BIAS if number == 0 else 0
    depth = left.shape[-1]
    sizes = product(np.abs(left), np.abs(right), transposed) + np.abs(bias)
    exact = product(left, right, transposed) + bias
    for precision in our_nodes.precisions():
        expected = product(*map(ROUNDED[precision], (left, right)), transposed) + bias
        found = outputs(precision, threads)[number].reshape(exact.shape)
        # A sum of K products in float32 rounds K times, each time by 2^-24 of a partial sum, which is no larger than the sum
        # of all sizes.
        assert (np.abs(found - expected) <= (depth + 1) * 2.0**-24 * 1.01 * sizes).all()
        # And it is not what the other precision makes of it, or Lite.
        assert (np.linalg.norm(found - exact) > 1e-3 * np.linalg.norm(exact)) == (precision == "bfloat16")


@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, *_ in CASES])
def test_lite_computes_them_where_ours_cannot(outputs, number):
    _, left, right, transposed, _ = CASES[number]
    exact = product(left, right, transposed) + (BIAS if number == 0 else 0)
    found = outputs("float32", 2, "lite")[number].reshape(exact.shape)
    assert np.linalg.norm(found - exact) < 1e-5 * np.linalg.norm(exact)


def test_kernels_that_do_not_compute_in_a_precision_are_refused(tmp_path, engine):
    folder = small_graph.write(tmp_path, Products, lambda: INPUTS)
    engine.convert(folder / "lowered.mindir", folder / "graph.ms")
    for how in (("bfloat16", "lite"), ("float16", "own")):
        with pytest.raises(EngineError, match=f"there are no such kernels for {how[0]}"):
            BridgeEngine(precision=how[0], kernels=how[1]).load(folder / "graph.ms")


def test_other_precisions_are_refused():
    with pytest.raises(UserError, match="precision is 'int4': choose one of float32, bfloat16, float16, auto"):
        engine.create(precision="int4")
    with pytest.raises(EngineError, match="'vendor' computes in float32, not bfloat16"):
        engine.create("vendor", precision="bfloat16")
