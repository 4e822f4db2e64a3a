"""Packed weights under Lite (runner/engine/native/packed_weights.h): large ones, shared ones, and what does not fit."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import small_graph
from damage import assert_one_line
from kandinsky_mindir.export.contents.ms_files import WeightStore, write_layout
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.draft import Draft
from kandinsky_mindir.runner.bundle import packed
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME, GraphInfo, TensorInfo
from kandinsky_mindir.runner.bundle.ms_layout import WEIGHTS
from kandinsky_mindir.runner.common.memory import in_use
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.loading.footprint import RUNTIME
from kandinsky_mindir.runner.upkeep.packing import pack
from mindspore import Parameter, Tensor, nn, ops


class Products(nn.Cell):
    """x times a weight, twice over, and times another."""

    def __init__(self, weight, other):
        super().__init__()
        self.weight, self.other = Parameter(Tensor(weight), name="weight"), Parameter(Tensor(other), name="other")
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x, y):
        return self.matmul(x, self.weight), self.matmul(y, self.weight), self.matmul(x, self.other)


class Both(nn.Cell):
    """Reads its weight packed, and as it is."""

    def __init__(self, weight):
        super().__init__()
        self.weight = Parameter(Tensor(weight), name="weight")

    def construct(self, x):
        return ops.MatMul(transpose_b=True)(x, self.weight) + self.weight


def draft(folder, engine, cell, weights, inputs):
    """A bundle of one graph."""
    small_graph.write(folder, cell, lambda: inputs)
    (folder / "part").mkdir()
    with WeightsWriter(folder / "part" / WEIGHTS) as writer:
        for name, array in weights.items():
            writer.write(name, array)
    engine.convert(folder / "lowered.mindir", folder / "graph.ms")
    write_layout(folder / "graph.ms", WeightStore(folder / "part", writer.index), folder / "part" / "graph.ms.layout")
    with engine.load(folder / "graph.ms") as model:
        sides = [tuple(TensorInfo(*spec) for spec in side) for side in (model.inputs, model.outputs)]
    graph = GraphInfo("graph", "part", 1, None, "part/graph.mindir", "part/graph.lite.mindir", ("part/graph.ms.layout",), *sides)
    (folder / FILE_NAME).write_text("{}")
    return Draft(folder, SimpleNamespace(graphs=(graph,), files={}))


@pytest.fixture
def products(engine, tmp_path):
    """(bundle, inputs, outputs): of weights of 67 MB, not all of whole pages."""
    random = np.random.default_rng(0)
    weight, other, x, y = (random.integers(-8, 8, shape).astype(np.float32)  # products are exact
                           for shape in ((4096, 4097), (4097, 4097), (2, 4097), (3, 4097)))
    bundle = draft(tmp_path, engine, lambda: Products(weight, other), {"weight": weight, "other": other}, [x, y])
    return bundle, [x, y], [x @ weight.T, y @ weight.T, x @ other.T]


def test_packed_weights_take_no_memory(products, engine):
    """The system's cache of files holds them. A run after a change of the file fails."""
    bundle, inputs, right = products
    assert [outcome.added is None for outcome in pack(bundle, engine)] == [False]
    rows = bundle.packed.graphs["part/graph.ms.layout"].packed
    assert len(rows) == 3 and sum(row.length for row in rows) >= 3 * 4096 * 4097 * 4  # the shared one for each of its readers
    before = in_use()
    with bundle.model("part/graph.ms.layout").assembled() as file:
        model = engine.load(file)
    with model:
        assert in_use() - before < RUNTIME
        for found, expected in zip(model.run(inputs), right, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert in_use() - before < RUNTIME
        path = bundle.path / packed.FOLDER / "part" / "graph.bin"
        path.touch()
        assert_one_line(f"{path} was changed on disk while", lambda: model.run(inputs))


@pytest.mark.parametrize("change", [
    lambda rows: rows[1:],
    pytest.param(lambda rows: [*rows, rows[0]._replace(position=rows[0].position + 64)], marks=pytest.mark.slow),
    pytest.param(lambda rows: [rows[0]._replace(length=rows[0].length - 64), *rows[1:]], marks=pytest.mark.slow),
])  # fmt: skip
def test_what_does_not_fit_the_graph(products, engine, change):
    """As where Lite packs otherwise than where the bundle was packed."""
    bundle, *_ = products
    list(pack(bundle, engine))
    source = bundle.model("part/graph.ms.layout")
    with source._replace(packed=change(list(source.packed))).assembled() as file:
        with pytest.raises(EngineError, match="its weights were packed for another processor: pack the bundle again"):
            engine.load(file)


def test_a_weight_that_is_read_both_ways(engine, tmp_path):
    """Such a graph is left as it is, and says so."""
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((512, 512)).astype(np.float32), np.ones((512, 512), np.float32)
    bundle = draft(tmp_path, engine, lambda: Both(weight), {"weight": weight}, [x])
    rows = pack(bundle, engine)
    (outcome,) = islice(rows, 1)
    assert outcome.added is None
    assert_one_line("has no weights that could be packed", lambda: list(rows))
    assert not list(tmp_path.glob("*packed*")) and bundle.packed is None
