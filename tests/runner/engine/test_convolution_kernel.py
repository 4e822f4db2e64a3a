"""Convolutions in bfloat16: what oneDNN computes under Lite is what rounding the factors explains, of every kind."""

import numpy as np
import pytest
import small_graph
from convolutions import Convolution, convolved
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.engine import precision
from mindspore import nn
from our_nodes import rounded

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


# Name, picture (batch, height, width, channels), channels of the result, kernel, stride, padding (top, bottom, left, right),
# whether there is a bias, whether oneDNN computes it: bands that divide the rows and do not, and a picture of one band.
CASES = [
    ("three by three", (2, 24, 20, 32), 48, 3, 1, (1, 1, 1, 1), True, True),
    ("rows that bands do not divide", (1, 37, 16, 16), 16, 3, 1, (1, 1, 1, 1), True, True),
    ("no bias", (1, 12, 12, 40), 24, 3, 1, (1, 1, 1, 1), False, True),
    ("half the size", (1, 20, 20, 32), 32, 3, 2, (0, 1, 0, 1), True, True),
    ("half an odd size", (1, 21, 19, 32), 32, 3, 2, (1, 1, 1, 1), True, True),
    ("zeros on two sides alone", (2, 18, 16, 24), 32, 3, 1, (0, 0, 1, 1), True, True),
    ("a large kernel", (1, 16, 16, 16), 32, 7, 1, (3, 3, 3, 3), True, True),
    ("one band", (1, 3, 40, 32), 32, 3, 1, (1, 1, 1, 1), True, True),
    ("wide rows", (1, 12, 520, 256), 16, 3, 1, (1, 1, 1, 1), True, True),
    ("a narrow picture, which is Lite's", (1, 16, 16, 4), 32, 3, 1, (1, 1, 1, 1), True, False),
    ("a narrow result, which is Lite's", (1, 16, 16, 32), 3, 3, 1, (1, 1, 1, 1), True, False),
]
NAMES = [name for name, *_ in CASES]
PICTURES = [normal(*shape) for _, shape, *_ in CASES]
WEIGHTS = [normal(out, kernel, kernel, shape[3]) for _, shape, out, kernel, *_ in CASES]
BIASES = [normal(case[2]) if case[6] else None for case in CASES]


class Convolutions(nn.Cell):
    def __init__(self):
        super().__init__()
        self.each = nn.CellList([
            Convolution(weight, bias, case[4], case[5]) for weight, bias, case in zip(WEIGHTS, BIASES, CASES, strict=True)
        ])

    def construct(self, a, b, c, d, e, f, g, h, i, j, k):
        each = self.each
        return (each[0](a), each[1](b), each[2](c), each[3](d), each[4](e), each[5](f), each[6](g), each[7](h), each[8](i),
                each[9](j), each[10](k))  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory, engine):
    """Outputs of the graph of all cases, by the precision and the number of threads."""
    folder = small_graph.write(tmp_path_factory.mktemp("convolutions"), Convolutions, lambda: PICTURES)
    engine.convert(folder / "lowered.mindir", folder / "graph.ms")
    return {(name, threads): run(folder / "graph.ms", name, threads)
            for name in ("float32", "bfloat16") for threads in ((1, 2, 3) if name == "bfloat16" else (2,))}


def run(path, name, threads):
    with engine.create("bridge", precision=name).load(path, threads=threads) as model:
        return model.run(PICTURES)


@pytest.mark.skipif(bool(precision.lacking()), reason=precision.lacking())
@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_bfloat16_is_what_rounding_the_factors_explains(found, number):
    *_, stride, padding, _, ours = CASES[number]
    picture, weight, bias = PICTURES[number], WEIGHTS[number], BIASES[number]
    exact = convolved(picture, weight, bias, stride, padding)
    outputs = [found["bfloat16", threads][number] for threads in (1, 2, 3)]
    if not ours:  # float32, as below
        assert all(np.linalg.norm(output - exact) < 1e-5 * np.linalg.norm(exact) for output in outputs)
        return
    expected = convolved(rounded(picture), rounded(weight), bias, stride, padding)
    # A sum of K products in float32 rounds K times, each time by 2^-24 of a partial sum, which is no larger than the sum of
    # all sizes.
    sizes = convolved(np.abs(picture), np.abs(weight), None if bias is None else np.abs(bias), stride, padding)
    depth = weight[0].size
    for output in outputs:
        assert (np.abs(output - expected) <= (depth + 1) * 2.0**-24 * 1.01 * sizes).all()
        # And it is not Lite's float32 convolution, which is right to about 1e-6.
        assert np.linalg.norm(output - exact) > 1e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_float32_is_lite_s_own(found, number):
    *_, stride, padding, _, _ = CASES[number]
    exact = convolved(PICTURES[number], WEIGHTS[number], BIASES[number], stride, padding)
    # Lite's Winograd rounds more than a plain sum: some 1e-6 here.
    assert np.linalg.norm(found["float32", 2][number] - exact) < 1e-5 * np.linalg.norm(exact)
