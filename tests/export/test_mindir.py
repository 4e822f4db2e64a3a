"""Graphs over one shared weight file, as MindSpore and as MindSpore Lite read them."""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec

import mindspore
import numpy as np
import pytest
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.graphs.lowering import lower
from kandinsky_mindir.export.graphs.mindir import REPORTS, compile_graph
from kandinsky_mindir.models.layers import Conv2d, Linear
from kandinsky_mindir.models.pictures import to_channels_first, to_channels_last
from kandinsky_mindir.runner.bundle.stored.wide_file import ALIGNMENT
from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine.framework.mindir import output_tensors
from mindspore import Tensor, nn, ops

# Small whole numbers: every product and sum is exact in float32, so results must be equal, not close.
WHOLE = np.random.default_rng(0)


def whole(*shape):
    return WHOLE.integers(-4, 5, shape).astype(np.float32)


class Both(nn.Cell):
    """Uses all weights, has two outputs, one of them an intermediate value too."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.mask = Linear(3, 5), Linear(5, 2), Tensor(MASK)

    def construct(self, tokens, bias):
        hidden = self.first(tokens) + bias
        return self.second(hidden * self.mask), hidden


class Part(nn.Cell):
    """Uses one of the layers."""

    def __init__(self):
        super().__init__()
        self.second = Linear(5, 2)

    def construct(self, hidden):
        return self.second(hidden)


MASK = whole(4, 5)
WEIGHTS = {
    "first.weight": whole(5, 3), "first.bias": whole(5), "second.weight": whole(2, 5), "second.bias": whole(2),
    "of_no_graph": whole(7),
}
TOKENS, BIAS, HIDDEN = whole(4, 3), whole(1, 5), whole(3, 5)
EXPECTED_HIDDEN = TOKENS @ WEIGHTS["first.weight"].T + WEIGHTS["first.bias"] + BIAS


def second(x):
    return x @ WEIGHTS["second.weight"].T + WEIGHTS["second.bias"]


GRAPHS = {
    "both": (
        Both, {"text": TOKENS, "time": BIAS}, {"score": second(EXPECTED_HIDDEN * MASK), "hidden": EXPECTED_HIDDEN}
    ),
    "part": (Part, {"state": HIDDEN}, {"score": second(HIDDEN)}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """weights.bin, and each of GRAPHS as name.mindir and name.lite.mindir."""
    folder = tmp_path_factory.mktemp("part")
    index = write_weights(folder)
    for name, (cell, inputs, outputs) in GRAPHS.items():
        model = compiled(cell(), inputs, outputs, index)
        (folder / f"{name}.mindir").write_bytes(model.SerializeToString())
        (folder / f"{name}.lite.mindir").write_bytes(lower(model).SerializeToString())
    return folder


def write_weights(folder):
    with WeightsWriter(folder / "weights.bin") as writer:
        for name, array in WEIGHTS.items():
            writer.write(name, array)
    return writer.index


def compiled(cell, inputs, outputs, index):
    specs = [(name, array.shape, array.dtype.name) for name, array in inputs.items()]
    return compile_graph(cell, specs, list(outputs), index, "weights.bin")


def test_weight_file(tmp_path):
    index = write_weights(tmp_path)
    data = (tmp_path / "weights.bin").read_bytes()
    assert data[:ALIGNMENT] == b"\x01" + bytes(ALIGNMENT - 1)
    end = ALIGNMENT
    for name, array in WEIGHTS.items():
        place = index[name]
        assert place.offset % ALIGNMENT == 0 and 0 <= place.offset - end < ALIGNMENT
        end = place.offset + place.length
        assert place.shape == array.shape and data[place.offset:end] == array.tobytes()


@pytest.mark.parametrize("name", GRAPHS)
def test_mindspore_runs_the_graph_as_written(name, folder):
    _, inputs, outputs = GRAPHS[name]
    cell = nn.GraphCell(mindspore.load(str(folder / f"{name}.mindir")))
    results = cell(*map(Tensor, inputs.values()))
    results = results if isinstance(results, tuple) else (results,)
    for result, expected in zip(results, outputs.values(), strict=True):
        np.testing.assert_array_equal(result.asnumpy(), expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_lite_runs_the_lowered_graph(name, folder, engine):
    _, inputs, outputs = GRAPHS[name]
    model = engine.load(folder / f"{name}.lite.mindir", threads=1)
    try:
        for tensors, arrays in ((model.inputs, inputs), (model.outputs, outputs)):
            assert [tuple(tensor) for tensor in tensors] == [(key, a.shape, "float32") for key, a in arrays.items()]
        for result, expected in zip(model.run(list(inputs.values())), outputs.values(), strict=True):
            np.testing.assert_array_equal(result, expected)
    finally:
        model.close()


def test_no_graph_holds_weights(folder):
    assert all(path.stat().st_size < 16384 for path in folder.glob("*.mindir"))


@pytest.mark.parametrize("name", GRAPHS)
def test_same_cell_same_bytes(name, folder):
    """What a process compiled before, and when, leaves no trace."""
    cell, inputs, outputs = GRAPHS[name]
    model = compiled(cell(), inputs, outputs, write_weights(folder))
    assert model.SerializeToString() == (folder / f"{name}.mindir").read_bytes()


@pytest.mark.parametrize("name", GRAPHS)
def test_output_tensors(name, tmp_path):
    cell, inputs, outputs = GRAPHS[name]
    tensors = output_tensors(compiled(cell(), inputs, outputs, write_weights(tmp_path)))
    assert [tuple(tensor.dims) for tensor in tensors] == [array.shape for array in outputs.values()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index: index.pop("second.bias"), "weight second.bias of shape (2,) is not in weights.bin"),
        (lambda index: index.update({"second.bias": StoredTensor("weights.bin", 64, (3,))}),
         "weight second.bias must be float32 of shape (2,); weights.bin holds float32 of (3,)"),
    ],
)
def test_weights_that_do_not_fit(change, said, tmp_path):
    index = write_weights(tmp_path)
    change(index)
    with pytest.raises(UserError) as caught:
        compiled(Part(), GRAPHS["part"][1], ["score"], index)
    assert str(caught.value) == said


class Image(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = Conv2d(2, 3, 3, padding=1)

    def construct(self, x):
        image = to_channels_first(self.conv(to_channels_last(x)))
        return image * image


def test_an_image_keeps_its_layout(tmp_path, engine):
    """Lite computes convolutions channels last: what goes in and comes out is NCHW all the same."""
    weights, x = {"conv.weight": whole(3, 3, 3, 2), "conv.bias": whole(3)}, whole(2, 2, 4, 4)
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for name, array in weights.items():
            writer.write(name, array)
    path = tmp_path / "image.lite.mindir"
    path.write_bytes(lower(compiled(Image(), {"x": x}, ["image"], writer.index)).SerializeToString())
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    expected = np.einsum("bihwyx,oyxi->bohw", windows, weights["conv.weight"]) + weights["conv.bias"][:, None, None]
    model = engine.load(path, threads=1)
    try:
        (result,) = model.run([x])
    finally:
        model.close()
    # Winograd's transform multiplies by fractions: rounding of 18 products, relative to the greatest; squaring doubles it.
    tolerance = 2 * 18 * 2.0**-23 * abs(expected).max() ** 2
    np.testing.assert_allclose(result, expected * expected, rtol=0, atol=tolerance)


class Wrong(nn.Cell):
    def construct(self, x):
        return ops.matmul(x, x)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files, of a name that MindSpore refuses, beside the working folder, empty too."""
    folder, working = tmp_path / "Temporärer Ordner", tmp_path / "working"
    folder.mkdir()
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv(REPORTS, raising=False)
    yield folder
    assert not os.listdir(folder) and not os.listdir(working)


def test_any_temporary_folder(temporary, tmp_path):
    graph = compiled(Part(), {"hidden": HIDDEN}, ["output"], write_weights(tmp_path))
    assert graph.graph.output and REPORTS not in os.environ


def test_a_failed_compilation_leaves_nothing(temporary):
    with pytest.raises(RuntimeError, match="analyze_fail"):
        compiled(Wrong(), {"x": whole(1, 3)}, ["y"], {})
    assert REPORTS not in os.environ


def test_a_report_goes_where_the_user_wants_it(temporary, monkeypatch, tmp_path):
    monkeypatch.setenv(REPORTS, str(tmp_path / "reports"))
    with pytest.raises(RuntimeError):
        compiled(Wrong(), {"x": whole(1, 3)}, ["y"], {})
    assert list((tmp_path / "reports").glob("**/analyze_fail.ir")) and os.environ[REPORTS] == str(tmp_path / "reports")


def test_protobuf_is_the_fast_one():
    """Where its package has both: MindSpore asks for the other when it is imported, and so do processes that it starts."""
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == ("upb" if find_spec("google._upb") else "python")


def test_compiling_makes_no_weights():
    """A layer of 4 GB compiles in a fraction of that: the parameters of cells stay empty."""
    code = """if True:
        import resource
        from kandinsky_mindir.export.graphs.mindir import compile_graph
        from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor
        from kandinsky_mindir.models.layers import Linear
        side = 1 << 15
        index = {"weight": StoredTensor("weights.bin", 64, (side, side))}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        compile_graph(Linear(side, side, bias=False), [("x", (1, side), "float32")], ["y"], index, "weights.bin")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    quiet = {**os.environ, "GLOG_v": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 256 * 1024  # KiB: the compiler's own need; the weights alone are 4 GiB
    assert done.stderr == ""
