"""3x3 convolutions that become one node: found in the graph, and what rounding the products' factors explains."""

import itertools

import numpy as np
import our_nodes
import pytest
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.graphs.lowering import lower
from kandinsky_mindir.export.graphs.mindir import compile_graph
from kandinsky_mindir.models import pictures, winograd
from kandinsky_mindir.models.layers import Conv2d, constant
from mindspore import nn
from tiles import by_tiles

WINOGRAD, DOUBLED = winograd.WinogradConv2d, winograd.DoubledConv2d

class Convolution(nn.Cell):
    """A cell's convolution of a picture in bands of at most `rows` rows, channels last."""

    def __init__(self, conv, rows):
        super().__init__()
        self.conv, self.rows = conv, rows

    def construct(self, x):
        return pictures.joined(self.conv.over(pictures.cut((x,), pictures.BAND // self.rows, 1)), 1)


class Normed(Convolution):
    """One whose result is used in two shapes, as a norm does: the converter joins each with the convolution's own."""

    def __init__(self, *what):
        super().__init__(*what)
        self.two = constant(2.0)

    def construct(self, x):
        x = super().construct(x)
        batch, height, width, channels = x.shape
        return x + (self.two * x.reshape(batch, height // 2, 2, width * channels)).reshape(x.shape)


class Graph:
    """The `.ms` file of a cell's convolution with random weights, and those. rows: even, so that tiles begin where bands do."""

    def __init__(self, folder, engine, cell, shape, filters, rows=100, around=Convolution):
        random = np.random.default_rng(1)
        built = around(cell(shape[-1], filters), rows)
        self.weights = {}
        with WeightsWriter(folder / "weights.bin") as writer:
            for parameter in built.get_parameters():
                values = random.standard_normal(parameter.shape).astype(np.float32)
                self.weights[parameter.name.rpartition(".")[2]] = values
                writer.write(parameter.name, values)
        self.x = random.standard_normal(shape).astype(np.float32)
        model = compile_graph(built, [("x", shape, "float32")], ["y"], writer.index, "weights.bin")
        (folder / "graph.mindir").write_bytes(lower(model).SerializeToString())
        self.ms = folder / "graph.ms"
        engine.convert(folder / "graph.mindir", self.ms)

    def run(self, *how):
        return our_nodes.run(self.ms, [self.x], *how)


@pytest.mark.parametrize("cell, shape, filters, rows", [
    (WINOGRAD, (2, 8, 6, 32), 48, 100), (WINOGRAD, (1, 7, 5, 16), 32, 100), (WINOGRAD, (2, 13, 6, 32), 16, 4),
    (WINOGRAD, (2, 34, 40, 16), 528, 100), (DOUBLED, (2, 5, 7, 32), 48, 100), (DOUBLED, (1, 13, 4, 16), 16, 6),
])  # fmt: skip
def test_right_to_what_rounding_the_factors_explains(cell, shape, filters, rows, program, engine, tmp_path):
    graph = Graph(tmp_path, engine, cell, shape, filters, rows)
    bands = -(-shape[1] // rows)
    found, _, ours, before, after = our_nodes.count(program, graph.ms)
    assert (found, ours) == (bands, bands) and after < before / 4
    taps = 4 if cell is WINOGRAD else 3
    exact, _ = by_tiles(graph.x.astype(np.float64), graph.weights, taps, np.asarray)
    for precision, threads in itertools.product(our_nodes.precisions(), (1, 3)):
        narrow = precision == "bfloat16"
        expected, sizes = by_tiles(graph.x.astype(np.float64), graph.weights, taps, our_nodes.rounded if narrow else np.asarray)
        actual = graph.run(precision, threads)
        # Each of a product's terms and of the products is rounded to 2^-24 of a partial sum, which is no larger than the sum
        # of all sizes. A sum of pixels that float32 rounds may fall to the other side of a tie of bfloat16, seldom: the sides
        # lie at most 2^-7 of that term apart, and no term is half of all.
        # In float32 the two roundings of a sum of pixels stay with the term.
        bound = (shape[-1] + taps * taps + 1 + 2 * (not narrow)) * 2.0**-24 * 1.01 * sizes
        near = np.abs(actual - expected) <= bound
        assert near.mean() > 0.99 and (np.abs(actual - expected) <= bound + narrow * 2.0**-8 * sizes).all()
        assert (np.linalg.norm(actual - exact) > 1e-3 * np.linalg.norm(exact)) == narrow  # not what is composed in float32
    assert np.linalg.norm(graph.run("float32", 2, "lite") - exact) < 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("cell", [WINOGRAD, DOUBLED])
def test_what_is_used_in_two_shapes_is_computed_once(cell, program, engine, tmp_path):
    graph = Graph(tmp_path, engine, cell, (1, 6, 8, 16), 32, around=Normed)
    found, _, ours, _, after = our_nodes.count(program, graph.ms)
    assert found == ours == 1 and after <= 6  # the node, two shapes, the doubling, a shape, the sum
    exact, _ = by_tiles(graph.x.astype(np.float64), graph.weights, 4 if cell is WINOGRAD else 3, np.asarray)
    # A factor is off by 2^-9 of itself at most, in float32 by 2^-24 after some sums; what a tile's products sum to may be less
    # than half as large as they are. A convolution that is missing or twice there is off by a third at least.
    for precision in our_nodes.precisions():
        bound = 1e-5 if precision == "float32" else 1e-2
        assert np.linalg.norm(graph.run(precision, 2) - 3 * exact) < bound * np.linalg.norm(3 * exact)


@pytest.mark.parametrize("cell, channels, filters", [
    (WINOGRAD, 24, 32), (WINOGRAD, 32, 24), (lambda *sides: Conv2d(*sides, 3, padding=1), 32, 32),
])  # fmt: skip
def test_others_stay_as_they_are(cell, channels, filters, program, engine, tmp_path):
    """What is composed otherwise, and numbers of channels that no vector divides."""
    graph = Graph(tmp_path, engine, cell, (1, 6, 6, channels), filters)
    found, _, ours, before, after = our_nodes.count(program, graph.ms)
    assert (found, ours) == (0, 0) and after == before


def test_nothing_is_lost_of_a_nan(engine, tmp_path):
    graph = Graph(tmp_path, engine, WINOGRAD, (1, 6, 6, 16), 16)
    graph.x[0, 3, 3, 5] = np.nan
    for precision in our_nodes.precisions():
        assert np.isnan(graph.run(precision, 2)[0, 2:4, 2:4]).all()
