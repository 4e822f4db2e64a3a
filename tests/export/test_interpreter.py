"""The exporter's own evaluator of MindIR, which computes sealed examples: every operator, and a whole graph."""

import shutil

import mindspore
import numpy as np
import pytest
from kandinsky_mindir.export.graphs import interpreter
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.upkeep.replay import read_example
from mindspore import ops
from operator_cases import CASES, IMAGE, Call, X, compiled, random
from plants import read, unpack

# Float64 rounds to 1e-16; the table that erf is interpolated in is good to 6e-12.
EXACT = 1e-11
# MindSpore computes in float32: what a whole graph may be off (test_lite_graphs.py).
GRAPH = 1e-5


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.operator}-{i}" for i, case in enumerate(CASES)])
def test_the_interpreter_knows_the_operator(case, tmp_path):
    model = compiled(case.cell, case.inputs)
    inputs = {f"input_{position}": array for position, array in enumerate(case.inputs)}
    expected = case.expected(*(array.astype(np.float64) for array in case.inputs))
    (result,) = interpreter.outputs(model, tmp_path, inputs)
    assert result.shape == expected.shape
    assert np.linalg.norm(result - expected) <= EXACT * np.linalg.norm(expected)


@pytest.mark.parametrize("operator, inputs, message", [
    (ops.Abs(), [X], r"^[^:]*: operator Abs is not known to the interpreter"),
    (ops.Conv2D(5, 3, pad_mode="same"), [IMAGE, random(5, 3, 3, 3)],
     r"^[^:]*: operator Conv2D cannot be evaluated: pad_mode, format, group, dilation \('same', "),
])
def test_what_the_interpreter_does_not_know_is_named(operator, inputs, message, tmp_path):
    given = {f"input_{position}": array for position, array in enumerate(inputs)}
    with pytest.raises(UserError, match=message):
        interpreter.outputs(compiled(Call(operator), inputs), tmp_path, given)


class Waiting(mindspore.nn.Cell):
    """y + sqrt(sqrt(sqrt(y))) with y = sigmoid(x), which waits."""

    def construct(self, x):
        first = ops.sigmoid(x)
        return first + ops.sqrt(ops.sqrt(ops.sqrt(first)))


@pytest.mark.parametrize("full", [False, True])
def test_large_values_that_wait_lie_on_disk(full, tmp_path, monkeypatch):
    """Of two maps, the one that is used once more at the end is a file meanwhile, where one can be written."""
    x = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
    model = compiled(Waiting(), [x])
    (expected,) = interpreter.outputs(model, tmp_path, {"input_0": x})
    monkeypatch.setattr(interpreter, "LARGE", x.size * 8)
    monkeypatch.setattr(interpreter, "SOON", 2)
    if full:
        monkeypatch.setattr(interpreter.tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))
    values = [value for _, value in interpreter.evaluate(model, tmp_path, {"input_0": x})]
    on_disk = [isinstance(value, np.memmap) for value in values if isinstance(value, np.ndarray) and value.size == x.size]
    assert on_disk.count(True) == (0 if full else 1) and on_disk.count(False) >= 3
    assert np.array_equal(values[-1][0] if isinstance(values[-1], tuple) else values[-1], expected)


def test_the_interpreter_agrees_with_mindspore(bundles, tmp_path):
    bundle = Bundle(bundles("narrow"))
    graph = bundle.manifest.find("unet_context")
    inputs = read_example(bundle, graph).inputs
    tensors = [mindspore.Tensor(inputs[tensor.name]) for tensor in graph.inputs]
    shutil.copytree(bundle.path / graph.part, tmp_path / graph.part)  # MindSpore wants no link to the weights
    unpack(tmp_path / graph.part)
    path = tmp_path / graph.mindir
    expected = mindspore.nn.GraphCell(mindspore.load(str(path)))(*tensors)
    for actual, wanted in zip(interpreter.outputs(read(path), path.parent, inputs), expected, strict=True):
        assert relative_error(wanted.asnumpy(), actual) <= GRAPH
