"""Graphs in Lite's own format: the converter's bytes, the bits of the MindIR, one copy of the weights on disk."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_graph
from damage import assert_one_line, edit_json
from kandinsky_mindir.export.contents import ms_files
from kandinsky_mindir.export.contents.ms_files import SMALLEST_STRETCH, MsWriter, WeightStore, write_layout
from kandinsky_mindir.export.contents.weights import WeightsWriter, padding
from kandinsky_mindir.runner.bundle.ms_layout import LITE_WEIGHTS, WEIGHTS, Layout, ModelFile
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor
from kandinsky_mindir.runner.engine.bridge import BridgeEngine
from kandinsky_mindir.runner.loading import models
from kandinsky_mindir.runner.loading.loader import load as load_graph
from kandinsky_mindir.runner.loading.models import Models


@pytest.fixture(scope="module")
def bundle(bundles):
    """A bundle of two sizes."""
    return Bundle(bundles("narrow"))


@pytest.fixture
def copy(bundle, tmp_path):
    """A bundle's folder to damage."""
    return shutil.copytree(bundle.path, tmp_path / "bundle")


def graphs(bundle, name):
    return [graph for graph in bundle.manifest.graphs if graph.name == name]


def layout(bundle, graph):
    return Layout.read(bundle.path / graph.ms[0])


def leased(bundle, name, engine, device="cpu"):
    return Models(bundle, engine, device=device, threads=1, keep_loaded=False).lease(name)


def load(path, name, engine):
    with leased(Bundle(path), name, engine):
        pass


def weight_index(lowered):
    from mindspore.train.mind_ir_pb2 import ModelProto

    index = {}
    for parameter in ModelProto.FromString(lowered.read_bytes()).graph.parameter:
        data = parameter.external_data
        index[parameter.ref_key] = StoredTensor(WEIGHTS, data.offset, tuple(parameter.dims))
    return index


def random_inputs(graph):
    rng = np.random.default_rng(0)
    draw = {
        "float32": lambda shape: rng.standard_normal(shape).astype(np.float32),
        "int32": lambda shape: rng.integers(0, 77, shape).astype(np.int32),  # token ids, or a position among 77
    }
    return {tensor.name: draw[tensor.dtype](tensor.shape) for tensor in graph.inputs}


@pytest.mark.parametrize("name", [
    "text_encoder", "image_encoder", "prior_context", "prior", "unet_context", "unet", "movq_decoder",
])  # fmt: skip
def test_bits_of_the_mindir(bundle, engine, name):
    """By Lite's kernels, which alone read MindIR. Inputs and outputs are the same as well: names, order, and shapes with channels before height and width."""
    graph = graphs(bundle, name)[-1]  # batch 2 where there is one, of a size that is not square
    path, inputs = bundle.path / graph.ms[0], random_inputs(graph)
    lite = BridgeEngine(kernels="lite")
    with (
        Layout.read(path).assemble(path) as file,
        bundle.unpacked(graph, graph.lite) as lowered,
        lite.load(file, threads=1) as ms,
        lite.load(lowered, threads=1) as mindir,
    ):
        assert (ms.inputs, ms.outputs) == (mindir.inputs, mindir.outputs)
        expected, found = (model.run([inputs[spec.name] for spec in ms.inputs]) for model in (mindir, ms))
        for tensor, right, output in zip(graph.outputs, expected, found, strict=True):
            assert np.std(right) > 0
            np.testing.assert_array_equal(output, right, err_msg=tensor.name)


def test_the_converters_bytes_come_back(bundle, engine, tmp_path):
    """From a layout made here, and from the bundle's, which another conversion gave. No tensor is so large that it moves."""
    (graph, *_) = graphs(bundle, "image_encoder")
    shutil.copy(bundle.path / "image_encoder" / WEIGHTS, tmp_path)
    ms, path = tmp_path / "graph.ms", tmp_path / "graph.ms.layout"
    with bundle.unpacked(graph, graph.lite) as lowered:
        engine.convert(lowered, ms)
        write_layout(ms, WeightStore(tmp_path, weight_index(lowered)), path)
    whole = ms.read_bytes()
    for place in (path, bundle.path / graph.ms[0]):
        with Layout.read(place).assemble(place) as file:
            assert Path(file.path).read_bytes() == whole
    made = Layout.read(path)
    assert made.size == made.weight_bytes == len(whole)
    with engine.load(ms, threads=1) as model:  # a file with a name, too
        assert model.inputs[0].shape == graph.inputs[0].shape


@pytest.mark.parametrize("name, part", [("unet", "unet"), ("movq_decoder", "movq")])
def test_weights_are_shared(bundle, name, part):
    """Graphs of all batches and sizes take their weights from the part's weight file. A convolution to or from a few channels
    is a product, whose weight the converter stores in another order: next to nothing."""
    (first, *_) = graphs(bundle, name)
    with bundle.unpacked(first, first.lite) as lowered:
        large = {place.offset: place.length for place in weight_index(lowered).values() if place.length >= SMALLEST_STRETCH}
    assert len(graphs(bundle, name)) > 1
    for graph in graphs(bundle, name):
        used = {stretch.offset for stretch in layout(bundle, graph).stretches if stretch.source == WEIGHTS}
        assert sum(length for offset, length in large.items() if offset not in used) <= 0.01 * sum(large.values())
    further = bundle.path / part / LITE_WEIGHTS
    assert not further.exists() or further.stat().st_size <= 0.01 * sum(large.values())


def test_tensors_of_the_converter_are_stored_once(bundle):
    for part in ("text_encoder", "prior"):
        layouts = [layout(bundle, graph) for graph in bundle.manifest.graphs if graph.part == part]
        data = (bundle.path / part / LITE_WEIGHTS).read_bytes()
        stretches = [stretch for each in layouts for stretch in each.stretches if stretch.source == LITE_WEIGHTS]
        places = sorted({(stretch.offset, stretch.length) for stretch in stretches})
        assert len({data[offset : offset + length] for offset, length in places}) == len(places)
        end = 0
        for offset, length in places:
            assert data[end:offset] == padding(end, length)
            end = offset + length
        assert end == len(data)


@pytest.fixture
def product(engine, tmp_path):
    """(`.ms` file, store) of a product with a weight that is large enough to be mapped."""
    from mindspore import Parameter, Tensor, nn, ops

    class Product(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = Parameter(Tensor(weight), name="weight")

        def construct(self, x):
            return ops.MatMul()(x, self.weight)

    weight = np.random.default_rng(0).standard_normal((300, 301)).astype(np.float32)
    small_graph.write(tmp_path, Product, lambda: [np.ones((2, 300), np.float32)])
    engine.convert(tmp_path / "lowered.mindir", tmp_path / "graph.ms")
    with WeightsWriter(tmp_path / WEIGHTS) as writer:
        writer.write("weight", weight)
    return tmp_path / "graph.ms", WeightStore(tmp_path, writer.index)


@pytest.mark.parametrize("which", [-1, -2], ids=["the rest of the weight", "its whole pages"])
def test_a_layout_that_gives_something_else(product, monkeypatch, which):
    """Were the files to change, or the splitting to err, no layout would come of it."""
    ms, store = product
    split = store.split

    def split_and_damage(path):
        layout = split(path)
        (name,) = layout.sources
        data = bytearray(ms.with_name(name).read_bytes())
        data[layout.stretches[which].offset] ^= 1
        ms.with_name(name).write_bytes(data)
        return layout

    monkeypatch.setattr(store, "split", split_and_damage)
    assert_one_line("graph.ms does not come out of its layout as it was: please report this",
                    lambda: write_layout(ms, store, ms.with_name("graph.ms.layout")))


def test_a_weight_too_far_away(product, monkeypatch):
    ms, store = product
    monkeypatch.setattr(ms_files, "FARTHEST", 1000)
    assert_one_line("graph.ms: a weight would lie too far from what refers to it", lambda: store.split(ms))


def test_no_conversion_stays_in_the_bundle(bundle):
    assert not list(bundle.path.rglob("*.ms"))
    assert all(graph.ms[0] in bundle.manifest.files for graph in bundle.manifest.graphs)


class Loaded(Exception):
    """Carries what an engine was asked to load."""


class StandIn:
    precision, kernels, reads = "float32", "lite", "lite"

    def __init__(self, takes_model_files):
        self.takes_model_files = takes_model_files

    def load(self, path, **_):
        raise Loaded(path)

    def convert(self, mindir, ms):
        raise AssertionError("it was asked to convert")


@pytest.mark.parametrize("takes, device, expected", [
    (True, "cpu", ModelFile), (True, "ascend", Path), (False, "cpu", Path),
])  # fmt: skip
def test_what_an_engine_is_given(bundle, takes, device, expected):
    with pytest.raises(Loaded) as loaded, leased(bundle, "prior_context", StandIn(takes), device):
        pass
    (asked,) = loaded.value.args
    assert isinstance(asked, expected)
    if expected is Path:
        assert asked.name == "prior_context_b1.lite.mindir"
    else:
        assert asked.fileno() == -1  # its memory is free again


def test_a_graph_that_cannot_be_converted(engine, tmp_path):
    from mindspore.train.mind_ir_pb2 import ModelProto

    with MsWriter(engine, WeightStore(tmp_path, {})) as writer:
        writer.start(ModelProto(), tmp_path / "empty.ms.layout")
        assert_one_line(r"empty.mindir: MindSpore Lite cannot convert it: .", writer.finish)
    assert list(tmp_path.iterdir()) == []


def test_loading_leaves_nothing_open(bundle, engine):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    load(bundle.path, "prior_context", engine)
    before = descriptors()
    load(bundle.path, "prior_context", engine)
    with pytest.raises(Loaded):
        load(bundle.path, "prior_context", StandIn(True))
    assert descriptors() == before


@pytest.mark.parametrize("file", ["prior/prior_context_b1.ms.layout", "prior/weights.bin", "prior/lite_weights.bin"])
def test_a_changed_file_is_found_before_it_is_used(copy, file):
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    assert_one_line(f"{file} does not match its sha256", lambda: load(copy, "prior_context", StandIn(True)))


@pytest.mark.parametrize("path, message", [
    ("prior/absent.ms.layout", "graph prior_context uses prior/absent.ms.layout, which files does not list"),
    ("../elsewhere", "leaves the bundle"),
    (7, r"ms\[0\]: expected 'str', got 'int'"),
])  # fmt: skip
def test_a_manifest_that_names_another_file(copy, path, message):
    def change(manifest):
        (graph,) = (graph for graph in manifest["graphs"] if graph["name"] == "prior_context")
        graph["ms"] = [path]

    edit_json(copy / "manifest.json", change)
    assert_one_line(message, lambda: Bundle(copy))


def test_a_graph_without_a_layout_is_loaded_from_mindir(copy):
    edit_json(copy / "manifest.json", lambda manifest: [graph["ms"].clear() for graph in manifest["graphs"]])
    with pytest.raises(Loaded) as loaded:
        load(copy, "prior_context", StandIn(True))
    (path,) = loaded.value.args
    assert path.name == "prior_context_b1.lite.mindir" and not path.exists()


@pytest.mark.parametrize("kind, field, value", [
    ("inputs", "shape", [1, 5]), ("inputs", "name", "text_maske"), ("inputs", "dtype", "int32"),
    ("outputs", "shape", [1, 5]), ("outputs", "name", "contexts"),
])  # fmt: skip
def test_a_graph_that_is_not_as_the_manifest_says(copy, engine, kind, field, value):
    def change(manifest):
        (graph,) = (graph for graph in manifest["graphs"] if graph["name"] == "prior_context")
        graph[kind][-1][field] = value

    edit_json(copy / "manifest.json", change)
    assert_one_line(f"prior_context_b1.ms.layout: the graph has the {kind} .*; the manifest says",
                    lambda: load(copy, "prior_context", engine))


class Reordered:
    """A model whose file has its inputs in the opposite order."""

    def __init__(self, model):
        self._model = model
        self.inputs, self.usable = model.inputs[::-1], True

    def run(self, arrays):
        return self._model.run(arrays[::-1])

    def close(self):
        self._model.close()


def test_inputs_go_by_name(bundle, engine, monkeypatch):
    graph = graphs(bundle, "prior_context")[0]
    with leased(bundle, "prior_context", engine) as run:
        (expected,) = run(**random_inputs(graph))
    monkeypatch.setattr(models, "load", lambda *given: Reordered(load_graph(*given)))
    with leased(bundle, "prior_context", engine) as run:
        (found,) = run(**random_inputs(graph))
    np.testing.assert_array_equal(found, expected)
