"""3x3 convolutions, whole and in bands of rows, on MindSpore Lite, against the sum over the kernel in float64."""

import numpy as np
import pytest
import torch
from kandinsky_mindir.export.checkpoint.tensor_names import SOURCES
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.graphs.lowering import lower
from kandinsky_mindir.export.graphs.mindir import compile_graph
from kandinsky_mindir.models import pictures, winograd
from kandinsky_mindir.models.layers import Conv2d
from mindspore import nn
from torch.nn import functional

CHANNELS, FILTERS, FEW = 20, 12, 2
# A product of float32 numbers rounds to 6e-8, a sum over 20 to 60 of them to some times that, and the transform of F(2, 3)
# amplifies it by two (Lavin and Gray 2015, section 5): 1e-6. A wrong coefficient is off by a tenth or more.
TOLERANCE = 1e-6
DOUBLING = (winograd.DoubledConv2d, winograd.RepeatedConv2d)


class Banded(nn.Cell):
    """A convolution of a picture that is cut into bands of at most `rows` rows, and joined again."""

    def __init__(self, conv, rows):
        super().__init__()
        self.conv, self.rows = conv, rows

    def construct(self, x):
        bands = pictures.cut((pictures.to_channels_last(x),), pictures.BAND // self.rows, 1)
        return pictures.to_channels_first(pictures.joined(self.conv.over(bands), 1))


def same_conv2d(in_channels, out_channels):
    return Conv2d(in_channels, out_channels, 3, padding=1)


# In bands of 5 rows at most, these heights are 5, 4 + 4, 5 + 5 + 3 and 1.
@pytest.mark.parametrize("height, width", [(13, 5), (1, 2), *(
    pytest.param(*size, marks=pytest.mark.slow) for size in ((5, 7), (8, 6), (1, 1)))])
@pytest.mark.parametrize("cell, filters", [
    (winograd.WinogradConv2d, FILTERS), (winograd.DoubledConv2d, FILTERS), (winograd.RepeatedConv2d, FILTERS),
    (same_conv2d, FILTERS), (same_conv2d, FEW),
])  # fmt: skip
def test_convolution(cell, filters, height, width, engine, tmp_path):
    random = np.random.default_rng(0)
    arrays = {"x.conv.weight": random.standard_normal((filters, CHANNELS, 3, 3)) / np.sqrt(9 * CHANNELS),
              "x.conv.bias": random.standard_normal(filters)}
    sources = SOURCES["unet"](tuple(arrays))
    built = Banded(cell(CHANNELS, filters), 5)
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for parameter in built.get_parameters():
            source = sources[f"x.{parameter.name}"]
            assert source.shape({name: array.shape for name, array in arrays.items()}) == parameter.shape
            writer.write(parameter.name, source.combine(*(arrays[name] for name in source.names)))
    x = random.standard_normal((2, CHANNELS, height, width)).astype(np.float32)
    model = compile_graph(built, [("x", x.shape, "float32")], ["y"], writer.index, "weights.bin")
    (tmp_path / "graph.mindir").write_bytes(lower(model).SerializeToString())
    with engine.load(tmp_path / "graph.mindir", threads=1) as lite:
        (actual,) = lite.run([x])
    pixels = torch.from_numpy(x.astype(np.float64))
    if cell in DOUBLING:
        pixels = functional.interpolate(pixels, scale_factor=2.0)
    expected = functional.conv2d(pixels, *map(torch.from_numpy, arrays.values()), padding=1).numpy()
    assert np.linalg.norm(actual - expected) <= TOLERANCE * np.linalg.norm(expected)


@pytest.mark.parametrize("heights, row_bytes, unit, expected", [
    ((8,), 1, 1, [8]), ((8,), pictures.BAND // 8, 1, [8]), ((8,), pictures.BAND // 4, 1, [4, 4]),
    ((9,), pictures.BAND // 4, 1, [3, 3, 3]), ((10,), pictures.BAND // 4, 1, [4, 4, 2]),
    ((12,), pictures.BAND // 4, 4, [4, 4, 4]), ((8, 4), pictures.BAND // 4, 2, [4, 4, 4]),
    ((4,), 2 * pictures.BAND, 2, [2, 2]),  # no unit is cut
])  # fmt: skip
def test_bands_are_even_and_end_between_units(heights, row_bytes, unit, expected):
    class Band:
        def __init__(self, height):
            self.shape = (1, height, 3, 5)

    class Ops:
        slice = staticmethod(lambda band, begin, size: Band(size[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "ops", Ops)
        cut = pictures.cut(tuple(Band(height) for height in heights), row_bytes, unit)
    assert [band.shape[1] for band in cut] == expected


def test_another_kernel_keeps_its_shape_so_that_it_is_refused():
    source = SOURCES["unet"](("x.conv1.weight",))["x.conv1.plain_0"]
    assert source.shape({"x.conv1.weight": (4, 5, 3, 3)}) == (4, 4, 5)
    assert source.shape({"x.conv1.weight": (4, 5, 1, 1)}) == (4, 5, 1, 1)
