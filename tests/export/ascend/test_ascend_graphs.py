"""Graphs for Ascend: which operators they have, where they compute in float32, and that a bundle with them holds together."""

from collections import Counter

import mindspore
import numpy as np
import pytest
from kandinsky_mindir.export.ascend.converter import configuration
from kandinsky_mindir.export.ascend.precision import LARGEST, MARGIN, peaks, set_float16
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.graphs.mindir import compile_graph
from kandinsky_mindir.export.graphs.node_layers import STRUCTURE, operator_of
from kandinsky_mindir.models.targets import Choice, Conv2d, LayerNorm, Linear, building_for, native
from kandinsky_mindir.runner.bundle.manifest import TensorInfo
from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor
from mindspore import nn, ops
from target_operators import counts


class Net(nn.Cell):
    """Two layers whose values are far apart, and a norm between them."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = Linear(4, 8), LayerNorm(8), Linear(8, 4)

    def construct(self, x):
        return self.second(self.norm(self.first(x)))


def compiled(cell, shape=(2, 4), place=None):
    place = place or {parameter.name: StoredTensor("weights.bin", 0, parameter.shape) for parameter in cell.get_parameters()}
    return compile_graph(cell, [("x", shape, "float32")], ["y"], place, "weights.bin")


def operators(model):
    return Counter(operator_of(node) for node in model.graph.node if operator_of(node) not in STRUCTURE)


def test_a_cell_is_made_of_the_layers_of_its_target():
    assert type(Net().norm).__module__.endswith("models.layers")
    with building_for("ascend"):
        assert type(Net().norm) is native.LayerNorm
        assert {name for name, _ in Conv2d(2, 3, 3).parameters_and_names()} == {"kernel", "bias"}
    assert {name for name, _ in Conv2d(2, 3, 3).parameters_and_names()} == {"weight", "bias"}
    with pytest.raises(ValueError, match="unknown target 'gpu': use one of cpu, ascend"), building_for("gpu"):
        pass
    assert Choice(dict, list)() == {}


@pytest.mark.parametrize("scale, wide", [pytest.param(1, [], marks=pytest.mark.slow), (1.1 * LARGEST / MARGIN, ["first", "norm"])])
def test_layers_stay_in_float32_where_float16_might_not_hold_them(scale, wide, tmp_path):
    """The large values are those that pass from the first layer to the norm; what is left of them is of order one."""
    cell, random = Net(), np.random.default_rng(0)
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for parameter in cell.get_parameters():
            array = random.uniform(-1, 1, parameter.shape) if "first" not in parameter.name else np.zeros(parameter.shape)
            writer.write(parameter.name, scale + array if parameter.name == "first.bias" else array)
    found = peaks(compiled(cell, place=writer.index), tmp_path, {"x": np.ones((2, 4), np.float32)})
    assert found["first"] == found["norm"] == pytest.approx(scale) and found["second"] < 10
    with building_for("ascend"):
        ascend = Net()
    assert sorted(set_float16(ascend, found)) == wide
    model = compiled(native.Float32Outputs(ascend), place=writer.index)
    assert operators(model)["LayerNorm"] == 1 and operators(model)["Cast"] > 0
    assert {parameter.ref_key for parameter in model.graph.parameter} == set(writer.index)
    ascend.second.precision = ascend.norm.precision = ascend.first.precision = mindspore.float32
    assert operators(compiled(ascend, place=writer.index))["Cast"] == 0


def test_a_value_that_is_no_number_is_too_large(tmp_path):
    cell = Net()
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for parameter in cell.get_parameters():
            writer.write(parameter.name, np.ones(parameter.shape))
    found = peaks(compiled(cell, place=writer.index), tmp_path, {"x": np.full((2, 4), np.inf, np.float32)})
    with building_for("ascend"):
        assert sorted(set_float16(Net(), found)) == ["first", "norm", "second"]
        assert sorted(set_float16(Net(), {"first": 1.0})) == ["norm", "second"]  # nobody knows theirs


@pytest.mark.parametrize("dim, bias, half, fused", [
    (16, False, True, True), *(pytest.param(*row, False, marks=pytest.mark.slow)
                               for row in ((8, False, True), (16, True, True), (16, False, False)))])  # fmt: skip
def test_attention_is_one_operator_where_it_fits(dim, bias, half, fused):
    class Attend(nn.Cell):
        def __init__(self, dim, bias):
            super().__init__()
            self.attention, self.bias = native.Attention(dim, 2), bias

        def construct(self, x):
            mask = ops.reshape(x, (-1,))[:3] if self.bias else None
            return self.attention(x, x, x, mask)

    cell = Attend(dim, bias)
    cell.attention.precision = mindspore.float16 if half else mindspore.float32
    for shape in ((1, 2, 3, dim), (2, 3, dim))[: 1 + fused]:
        assert operators(compiled(native.Float32Outputs(cell), shape))["PromptFlashAttention"] == fused


def test_the_converter_is_told_shapes_and_types():
    sample, time = TensorInfo("sample", (2, 4, 8, 8), "float32"), TensorInfo("time", (1, 32), "float32")
    assert configuration([sample, time]) == (
        "[ascend_context]\ninput_format=NCHW\ninput_shape=sample:[2,4,8,8];time:[1,32]\nprecision_mode=enforce_origin\n"
        "plugin_custom_ops=GroupNormSilu\n")
    assert "input_format=ND\n" in configuration([time])


@pytest.mark.slow
def test_a_unet_takes_a_third_of_the_operators():
    for graph, _, found in counts("unet"):
        if graph == "unet":
            assert 3 * found["ascend"] <= found["cpu"], found
