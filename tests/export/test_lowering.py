"""Every operator of the table: compiled by MindSpore, lowered, run on Lite 2.0, compared with NumPy in float64."""

import inspect

import numpy as np
import pytest
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.graphs.lowering import LoweringError, lower
from kandinsky_mindir.export.graphs.operators import OPERATORS
from kandinsky_mindir.runner.common.errors import UserError
from mindspore import ops
from operator_cases import CASES, IMAGE, Call, Layer, Stateful, X, compiled, random

STRUCTURE = {"Depend", "Load", "MakeTuple", "UpdateState"}  # in the graph of Stateful
REFUSED = {name for name, row in OPERATORS.items() if row.refused}


def on_lite(engine, model, folder, inputs):
    path = folder / "graph.lite.mindir"
    path.write_bytes(lower(model).SerializeToString())
    lite = engine.load(path, threads=1)
    try:
        return lite.run(inputs)
    finally:
        lite.close()


def operators_in(model):
    return {primitive.op_type for primitive in model.primitives}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.operator}-{number}" for number, case in enumerate(CASES)])
def test_operator(case, engine, tmp_path):
    expected = case.expected(*(array.astype(np.float64) for array in case.inputs))
    expected = expected if isinstance(expected, list) else [expected]
    model = compiled(case.cell, case.inputs, outputs=[f"output_{position}" for position in range(len(expected))])
    assert case.operator in operators_in(model)
    for result, wanted in zip(on_lite(engine, model, tmp_path, case.inputs), expected, strict=True):
        assert result.shape == wanted.shape
        assert np.linalg.norm(result - wanted) <= case.tolerance * np.linalg.norm(wanted)


def test_structure(engine, tmp_path):
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        writer.write("weight", np.arange(4, dtype=np.float32))
    model = compiled(Stateful(), [X], writer.index, ("sum", "same"))
    assert operators_in(model) >= STRUCTURE
    total, same = on_lite(engine, model, tmp_path, [X])
    np.testing.assert_array_equal(total, X + np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(same, X)


def test_every_row_is_tested():
    assert {case.operator for case in CASES} | STRUCTURE | REFUSED == set(OPERATORS)


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.arguments])
def test_arguments_are_named_as_in_mindspore(name):
    renamed = {"data_format": "format"}  # the attribute's name before MindIR 3
    parameters = list(inspect.signature(getattr(ops, name).__init__).parameters)[1:]
    assert OPERATORS[name].arguments == tuple(renamed.get(parameter, parameter) for parameter in parameters)


def test_the_model_is_left_as_it_was():
    model = compiled(Call(ops.MatMul(transpose_b=True)), [random(2, 7), random(3, 7)])
    before = model.SerializeToString(deterministic=True)
    lower(model)
    assert model.SerializeToString(deterministic=True) == before


def refusal(model):
    """What is said of a graph that cannot be lowered: one line."""
    with pytest.raises(LoweringError) as caught:
        lower(model)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    return str(caught.value)


def gelu(x):
    return ops.GeLU()(x)


def halve(x):
    return x / 2.0


def double(x):
    return x * 2.0


def layer_norm(x):
    return ops.LayerNorm(2, 2)(x, ops.ones((4,)), ops.zeros((4,)))[0]


def group_norm(x):
    return ops.group_norm(x, 3)


def greatest(x):
    return ops.ReduceMax()(x, 1)


def power(x):
    return ops.pow(x, 3.0)


UNUSABLE = {
    "Cos": ops.cos, "Divs": halve, "GeLU": gelu, "GroupNorm": group_norm, "LayerNorm": layer_norm, "Muls": double,
    "Pow": power, "ReduceMax": greatest, "Rsqrt": ops.rsqrt, "SiLU": ops.silu, "Sin": ops.sin, "Tanh": ops.tanh,
}


def test_every_unusable_operator_is_refused():
    assert set(UNUSABLE) == REFUSED


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_operators_are_refused(name):
    said = refusal(compiled(Layer(UNUSABLE[name]), [X]))
    assert said.startswith("Default/inner-Inner/")
    assert said.endswith(f": operator {name} is refused: {OPERATORS[name].refused}")


def test_unknown_operator():
    said = refusal(compiled(Layer(ops.atan), [X]))
    assert said == "Default/inner-Inner/Atan-op0: operator Atan has no known form for Lite 2.0"


def test_the_layer_of_an_output_is_named_too():
    assert refusal(compiled(Layer.Inner(ops.atan), [X])).startswith("Default/Atan-op0: ")


def matmul():
    """A graph with one MatMul, and its node."""
    model = compiled(Layer(ops.MatMul(transpose_b=True)), [random(2, 7), random(3, 7)])
    return model, next(node for node in model.graph.node if node.op_type.startswith("REF::MatMul:"))


def test_argument_that_is_not_constant():
    model, node = matmul()
    node.input[3] = "graph:input_0"
    assert refusal(model).endswith("operator MatMul: argument transpose_b is not a constant")


def test_argument_that_the_table_does_not_know():
    model, node = matmul()
    node.input.append(node.input[3])
    assert refusal(model).endswith("operator MatMul has 3 arguments; known are transpose_a, transpose_b")


def test_enumeration_without_a_name():
    model = compiled(Layer(ops.BiasAdd()), [IMAGE, random(3)])
    node = next(node for node in model.graph.node if node.op_type.startswith("REF::BiasAdd:"))
    constant = next(other for other in model.graph.node if other.name == node.input[2])
    constant.attribute[0].i = 77
    assert refusal(model).endswith("operator BiasAdd: argument format has the unknown value 77")


def test_empty_axes():
    said = refusal(compiled(Call(ops.ReduceMean()), [X]))
    assert "operator ReduceMean has an empty tuple as an argument" in said


def test_subgraph():
    model, _ = matmul()
    model.functions.add(name="loop_body")
    assert refusal(model).startswith("loop_body: subgraphs have no known form for Lite 2.0")
