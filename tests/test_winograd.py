"""3x3 convolutions as products of transformed tiles, on MindSpore Lite, against the sum over the kernel in float64."""

import numpy as np
import pytest
import torch
from kandinsky_mindir.export.lowering import lower
from kandinsky_mindir.export.mindir import compile_graph
from kandinsky_mindir.export.tensor_names import SOURCES
from kandinsky_mindir.export.weights import WeightsWriter
from kandinsky_mindir.models import winograd
from torch.nn import functional

CHANNELS, FILTERS = 20, 12
# A product of float32 numbers rounds to 6e-8, a sum over 20 to 60 of them to some times that, and the transform of F(2, 3)
# amplifies it by two (Lavin and Gray 2015, section 5): 1e-6. A wrong coefficient is off by a tenth or more.
TOLERANCE = 1e-6


@pytest.mark.parametrize("height, width", [(8, 6), (5, 7), (1, 2), (1, 1)])
@pytest.mark.parametrize("cell", [winograd.WinogradConv2d, winograd.DoubledConv2d])
def test_convolution(cell, height, width, engine, tmp_path):
    random = np.random.default_rng(0)
    arrays = {"x.conv.weight": random.standard_normal((FILTERS, CHANNELS, 3, 3)) / np.sqrt(9 * CHANNELS),
              "x.conv.bias": random.standard_normal(FILTERS)}
    sources = SOURCES["unet"](tuple(arrays))
    built = cell(CHANNELS, FILTERS)
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for parameter in built.get_parameters():
            source = sources[f"x.conv.{parameter.name}"]
            assert source.shape({name: array.shape for name, array in arrays.items()}) == parameter.shape
            writer.write(parameter.name, source.combine(*(arrays[name] for name in source.names)))
    x = random.standard_normal((2, height, width, CHANNELS)).astype(np.float32)
    model = compile_graph(built, [("x", x.shape, "float32")], ["y"], writer.index, "weights.bin")
    (tmp_path / "graph.mindir").write_bytes(lower(model).SerializeToString())
    with engine.load(tmp_path / "graph.mindir", threads=1) as lite:
        (actual,) = lite.run([x])
    pixels = torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2)
    if cell is winograd.DoubledConv2d:
        pixels = functional.interpolate(pixels, scale_factor=2.0)
    expected = functional.conv2d(pixels, *map(torch.from_numpy, arrays.values()), padding=1).permute(0, 2, 3, 1).numpy()
    assert np.linalg.norm(actual - expected) <= TOLERANCE * np.linalg.norm(expected)


def test_another_kernel_keeps_its_shape_so_that_it_is_refused():
    source = SOURCES["unet"](("x.conv1.weight",))["x.conv1.plain_0"]
    assert source.shape({"x.conv1.weight": (4, 5, 3, 3)}) == (4, 4, 5)
    assert source.shape({"x.conv1.weight": (4, 5, 1, 1)}) == (4, 5, 1, 1)
