"""MindIR files that are damaged are refused where they are read."""

import pytest
from damage import assert_one_line
from kandinsky_mindir.export.graphs.reader import read_model
from kandinsky_mindir.runner.bundle.opened import Bundle
from mindspore.train.mind_ir_pb2 import ModelProto

GRAPH = "unet_context"


@pytest.fixture(scope="module")
def data(bundles):
    bundle = Bundle(bundles("narrow"))
    return bundle.mindir(bundle.manifest.find(GRAPH).mindir)


def test_what_export_wrote_is_read_as_it_is(data):
    assert read_model(data, GRAPH).SerializeToString() == data


@pytest.mark.parametrize("end", [1, 100, -1])
def test_a_cut_file_is_refused(data, end):
    assert_one_line("is not MindIR|output is not one", lambda: read_model(data[:end], GRAPH))


def test_text_that_is_none_is_refused(data):
    damaged = data.replace(b"Constant", b"Const\xffnt", 1)
    assert_one_line(f"{GRAPH} is not MindIR", lambda: read_model(damaged, GRAPH))


DAMAGES = [
    (lambda m: m.functions.add(), "it has subgraphs"),
    (lambda m: m.primitives.append(m.primitives[0]), "two primitives have one name"),
    (lambda m: m.graph.input.append(m.graph.input[0]), "two values are called 'graph:image_embeds'"),
    (lambda m: m.graph.node.append(m.graph.node[3]), "two values are called 'graph:3'"),
    (lambda m: m.graph.node[-1].output.append("x"), "not itself"),
    (lambda m: m.graph.node[3].input.append("nothing"), "takes 'nothing', which does not come before it"),
    (lambda m: m.graph.node[0].input.append(m.graph.node[-1].name), "which does not come before it"),
    (lambda m: first(m, "Constant").ClearField("attribute"), "has 0 values"),
    (lambda m: setattr(m.graph.node[-1], "op_type", "REF::Magic:1"), "has the unknown operator 'REF::Magic:1'"),
    (lambda m: first(m, "REF::Load").ClearField("input"), "takes nothing"),
    (lambda m: m.graph.output.add(name=m.graph.node[0].name), "its output is not one of its nodes"),
    (lambda m: setattr(m.graph.output[0], "name", "x"), "its output is not one of its nodes"),
    (lambda m: setattr(m.graph.parameter[0].external_data, "location", "../weights.bin"), "not beside it"),
    (lambda m: setattr(m.graph.parameter[0].external_data, "location", ".."), "not beside it"),
    (lambda m: setattr(m.graph.parameter[0].external_data, "location", ""), "not beside it"),
    (lambda m: setattr(m.graph.parameter[0].external_data, "offset", -4), "bytes at -4"),
    (lambda m: setattr(m.graph.parameter[0].external_data, "length", 3), "has 3 bytes at"),
    (lambda m: m.graph.parameter[0].dims.append(-1), "has .* bytes at"),
]


def first(model, operator):
    return next(node for node in model.graph.node if node.op_type.startswith(operator))


@pytest.mark.parametrize("damage, words", DAMAGES)
def test_a_damaged_graph_is_refused(data, damage, words):
    model = ModelProto.FromString(data)
    damage(model)
    assert_one_line(words, lambda: read_model(model.SerializeToString(), GRAPH))
