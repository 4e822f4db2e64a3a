"""Sealed examples: whatever is planted in a graph or its weights is found, by name, and the layer with it."""

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from zipfile import ZipFile

import checkpoints
import numpy as np
import pytest
from kandinsky_mindir.export import bundle as bundle_module
from kandinsky_mindir.export.bisect import bisect
from kandinsky_mindir.export.layers import layers_of, operator_of
from kandinsky_mindir.runner.bundle import Bundle, sha256_of
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.component import Components
from kandinsky_mindir.runner.errors import UserError
from kandinsky_mindir.runner.golden import Golden, Sample, file_name, positions
from kandinsky_mindir.runner.manifest import sealed
from kandinsky_mindir.runner.mindir_archive import NAME, archive_of, pack
from kandinsky_mindir.runner.verify import read_golden, require_right, verify
from mindspore.train.mind_ir_pb2 import ModelProto


def read(path):
    return ModelProto.FromString(path.read_bytes())


@pytest.fixture
def planted(bundles, tmp_path):
    """A function: a copy of the narrow bundle with one graph, which may be changed; the manifest follows."""

    @contextmanager
    def copy(graph_name):
        folder = tmp_path / "bundle"
        shutil.copytree(bundles("narrow"), folder, copy_function=os.link)
        manifest = json.loads((folder / "manifest.json").read_text())
        graph = next(graph for graph in manifest["graphs"] if graph["name"] == graph_name)
        manifest["graphs"] = [graph | {"ms": []}]  # what Lite runs is the lowered MindIR, where the plants are
        unpack(folder / graph["part"])
        yield Plant(folder, graph)
        pack(folder / graph["part"])
        for name in (archive_of(graph["lite"]), f"{graph['part']}/weights.bin"):
            path = folder / name
            manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(sealed(manifest))

    return copy


def unpack(part):
    """Undo `pack` in the folder of a part."""
    with ZipFile(part / NAME) as file:
        file.extractall(part)
    (part / NAME).unlink()


class Plant:
    """Changes to a lowered graph and its weights."""

    def __init__(self, folder, graph):
        self.folder, self.path = folder, folder / graph["lite"]
        self.model, self.layers = read(self.path), layers_of(read(folder / graph["mindir"]))
        self.primitives = {f"REF::{primitive.name}": primitive for primitive in self.model.primitives}
        self.nodes = {node.name: node for node in self.model.graph.node}

    def find(self, operator, layer):
        """The first node of that operator in that layer."""
        return next(node for node in self.model.graph.node
                    if operator_of(node) == operator and self.layers[node.name] == layer)

    def attribute(self, node, name):
        return next(attribute for attribute in self.primitives[node.op_type].attribute if attribute.name == name)

    def own(self, node, position):
        """A constant operand of `node` as an array to change, copied if other nodes use it, too."""
        source = self.nodes[node.input[position]]
        constant = self.model.graph.node.add()
        constant.CopyFrom(source)
        constant.name = f"{source.name}:planted"
        constant.output[:] = [constant.name]
        node.input[position] = constant.name
        nodes = [each for each in self.model.graph.node if each.name != constant.name]
        copied = ModelProto()
        copied.graph.node.append(constant)
        del self.model.graph.node[:]
        self.model.graph.node.extend([*copied.graph.node, *nodes])
        return self.model.graph.node[0].attribute[0]

    def parameter(self, name):
        return next(parameter for parameter in self.model.graph.parameter if parameter.ref_key == name)

    def save(self):
        self.path.write_bytes(self.model.SerializeToString())


LAYER = "text_model.encoder.layers.1"
CONV = "decoder.mid_block.resnets.0.conv1"  # one that is neither a product nor a Winograd transform


def reorder_weight(plant, name, axes):
    """Write a weight in another order of its axes, as if it had the same shape."""
    parameter, weights = plant.parameter(name), plant.path.with_name("weights.bin")
    place, data = parameter.external_data, bytearray(weights.read_bytes())
    stretch = slice(place.offset, place.offset + place.length)
    array = np.frombuffer(data[stretch], "<f4").reshape(tuple(parameter.dims))
    data[stretch] = array.transpose(axes).tobytes()
    weights.unlink()
    weights.write_bytes(data)


def transposed_weight(plant):
    reorder_weight(plant, f"{LAYER}.self_attn.k_proj.weight", (1, 0))


def neighbours_weight(plant):
    ours, other = (plant.parameter(f"{LAYER}.self_attn.{name}.weight") for name in ("q_proj", "v_proj"))
    ours.external_data.offset = other.external_data.offset


def missing_transpose_b(plant):
    primitive = plant.primitives[plant.find("MatMul", f"{LAYER}.self_attn.v_proj").op_type]
    primitive.attribute.remove(plant.attribute(plant.find("MatMul", f"{LAYER}.self_attn.v_proj"), "transpose_b"))


def wrong_epsilon(plant):
    norm = plant.find("Add", f"{LAYER}.layer_norm1")
    plant.own(norm, 1).tensors[0].raw_data = np.float32(1e-4).tobytes()  # 1e-5


def axis_off_by_one(plant):
    plant.own(plant.find("ReduceMean", f"{LAYER}.layer_norm2"), 1).values[0].ints[0] = -2


def swapped_inputs(plant):
    node = plant.find("Sub", f"{LAYER}.layer_norm2")
    node.input[:] = reversed(node.input)


def dropped_bias(plant):
    node = plant.find("BiasAdd", f"{LAYER}.mlp.fc1")
    for user in plant.model.graph.node:
        user.input[:] = [node.input[0] if name == node.name else name for name in user.input]


def scaled_constant(plant):
    tensor = plant.own(plant.find("Mul", f"{LAYER}.mlp.fc1"), 1).tensors[0]
    tensor.raw_data = (np.frombuffer(tensor.raw_data, "<f4") * np.float32(1.7 / 1.702)).tobytes()  # quick GELU


def wrong_softmax_axis(plant):
    plant.attribute(plant.find("Softmax", f"{LAYER}.self_attn.attention"), "axis").values[0].ints[0] = -2


def wrong_permutation(plant):
    values = plant.own(plant.find("Transpose", f"{LAYER}.self_attn.attention"), 1).values
    values[1].ints[0], values[3].ints[0] = values[3].ints[0], values[1].ints[0]


def other_activation(plant):
    plant.primitives[plant.find("Sigmoid", f"{LAYER}.mlp.fc1").op_type].op_type = "Tanh"


def shifted_padding(plant):
    for name in ("pad", "pad_list"):
        for value, side in zip(plant.attribute(plant.find("Conv2D", CONV), name).values, (2, 0, 1, 1)):
            value.ints[0] = side


def channels_last(plant):
    """NHWC for NCHW: the weight's pixels before its channels."""
    reorder_weight(plant, "vision_model.embeddings.patch_embedding.weight", (0, 2, 3, 1))


TEXT, IMAGE, MOVQ = "text_encoder", "image_encoder", "movq_decoder"
PLANTS = [
    # the graph, what is done to it, the layer that --bisect must name
    (TEXT, transposed_weight, f"{LAYER}.self_attn.k_proj"),
    (TEXT, neighbours_weight, f"{LAYER}.self_attn.q_proj"),
    (TEXT, missing_transpose_b, f"{LAYER}.self_attn.v_proj"),
    (TEXT, wrong_epsilon, f"{LAYER}.layer_norm1"),
    (TEXT, axis_off_by_one, f"{LAYER}.layer_norm2"),
    (TEXT, swapped_inputs, f"{LAYER}.layer_norm2"),
    (TEXT, dropped_bias, f"{LAYER}.mlp.fc1"),
    (TEXT, scaled_constant, f"{LAYER}.mlp.fc1"),
    (TEXT, wrong_softmax_axis, f"{LAYER}.self_attn.attention"),
    (TEXT, wrong_permutation, f"{LAYER}.self_attn.attention"),
    (TEXT, other_activation, f"{LAYER}.mlp.fc1"),
    (MOVQ, shifted_padding, CONV),
    (IMAGE, channels_last, "vision_model.embeddings.patch_embedding"),
]


@pytest.mark.parametrize("graph, plant, layer", PLANTS, ids=[plant.__name__ for _, plant, _ in PLANTS])
def test_a_plant_is_found_and_located(graph, plant, layer, planted, engine):
    with planted(graph) as target:
        plant(target)
        target.save()
    bundle = Bundle(target.folder)
    (verdict,) = verify(Components(bundle, engine, keep_loaded=False))
    print(f"{plant.__name__}: {verdict}")
    assert not verdict.right
    with pytest.raises(UserError, match=f"^{graph} batch 1"):
        require_right([verdict])
    assert f"first wrong in {layer} " in bisect(bundle, verdict.graph, engine)


def test_a_good_bundle_passes(bundles, capsys):
    assert main(["verify", str(bundles("narrow"))]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == len(Bundle(bundles("narrow")).manifest.graphs)
    assert all(row.endswith(" right") for row in rows)


def test_the_command_names_the_graph_and_the_layer(planted, capsys):
    with planted(TEXT) as target:
        dropped_bias(target)
        target.save()
    assert main(["verify", str(target.folder), "--bisect"]) == 2
    output = capsys.readouterr()
    assert "WRONG" in output.out and f"first wrong in {LAYER}.mlp.fc1" in output.out
    assert output.err.startswith("kandinsky-mindir: error: text_encoder batch 1 is wrong")
    assert output.err.count("\n") == 1
    assert main(["verify", str(target.folder), "--tolerance", "0.5"]) == 0


def test_export_refuses_a_bundle_that_computes_wrong_values(bundles, planted, tmp_path, monkeypatch):
    """Everything of an export but compiling: the graphs are those of the shared bundle, one with a plant in it."""
    graphs = [replace(graph, ms=()) for graph in Bundle(bundles("narrow")).manifest.graphs]

    def made_before(folder, *_):
        for part in {graph.part for graph in graphs}:
            shutil.copytree(target.folder / part, folder / part, ignore=shutil.ignore_patterns("*.golden.npz"))
        return graphs

    monkeypatch.setattr(bundle_module, "write_parts", made_before)
    with planted(TEXT) as target:
        dropped_bias(target)
        target.save()
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(UserError, match="^text_encoder batch 1 is wrong"):
        bundle_module.export_bundle(*checkpoints.save("narrow", tmp_path), work / "bundle", checkpoints.SIZES["narrow"],
                                    progress=False)
    assert not list(work.iterdir())


@pytest.mark.parametrize("change, message", [
    (lambda path: path.write_bytes(path.read_bytes()[:-99]), "does not match|bytes, the manifest says"),
    (lambda path: path.unlink(), "missing"),
])
def test_a_damaged_example_is_named(change, message, bundles, tmp_path, engine):
    folder = tmp_path / "bundle"
    shutil.copytree(bundles("narrow"), folder)
    bundle = Bundle(folder)
    name = file_name(bundle.manifest.graphs[0])
    change(folder / name)
    with pytest.raises(UserError, match=message) as caught:
        list(verify(Components(bundle, engine, keep_loaded=False)))
    assert name in str(caught.value)


def test_what_cannot_be_verified_is_said(bundles, engine):
    components = Components(Bundle(bundles("narrow")), engine, keep_loaded=False)
    with pytest.raises(UserError, match="no part 'vae': it has text_encoder, "):
        list(verify(components, "vae"))
    manifest = components.bundle.manifest
    manifest.files.pop(file_name(manifest.graphs[0]))
    with pytest.raises(UserError, match="no sealed example of text_encoder batch 1"):
        read_golden(components.bundle, manifest.graphs[0])


def test_a_sample_measures_relative_error():
    exact = np.random.default_rng(0).standard_normal((3, 5000))
    sample = Sample.of(exact, exact.astype(np.float32), 4096)
    assert sample.relative_error(exact * 1.01) == pytest.approx(0.01, rel=0.05)  # 4096 of 15000 squares: within 5 %
    assert 0 < sample.rounding < 2.0**-24
    assert sample.relative_error(np.where(exact == exact[0, 0], np.nan, exact)) == np.inf
    # Each place counts: no stretch of twice the mean distance goes without a sample.
    assert np.diff(np.sort(np.append(positions(exact.size, 4096), [0, exact.size]))).max() <= 2 * exact.size / 4096


def test_examples_come_back_as_written(tmp_path):
    sample = Sample(np.arange(3, dtype=np.float32), 1.5, 0.25)
    example = Golden({"x": np.ones((1, 2), np.float32)}, [sample], {"graph:7": sample})
    example.write(tmp_path / "x.npz")
    again = Golden.read(tmp_path / "x.npz")
    np.testing.assert_equal(again, example)
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="x.npz cannot be read"):
        Golden.read(tmp_path / "x.npz")


def test_generate_verifies_first(planted, tmp_path, capsys):
    with planted(TEXT) as target:
        dropped_bias(target)
        target.save()
    picture = tmp_path / "picture.png"
    assert main(["generate", str(target.folder), "a cat", "--verify", "--output", str(picture)]) == 2
    assert "text_encoder batch 1 is wrong" in capsys.readouterr().err
    assert not picture.exists()
