"""MindSpore itself as an engine: a bundle's graphs as they were exported, and one-line errors."""

import os
import subprocess
import sys
import threading

import mindspore
import numpy as np
import pytest
import small_graph
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, engine
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import verify
from mindspore.train.mind_ir_pb2 import ModelProto
from psnr import LEAST_PSNR, picture, psnr
from small_graph import COLUMNS, ROWS, expected, make_inputs

NEWER = 99  # a version of MindIR that nobody writes


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return small_graph.write(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def lite():
    return engine.create("mindspore")


@pytest.fixture
def model(lite, graphs):
    with lite.load(graphs / "graph.mindir", threads=1) as loaded:
        yield loaded


def test_runs_a_graph(model):
    assert [(spec.shape, spec.dtype) for spec in model.inputs] == [((ROWS, COLUMNS), "float32"), ((ROWS,), "int32")]
    assert [(spec.shape, spec.dtype) for spec in model.outputs] == [((ROWS, COLUMNS), "float32"), ((COLUMNS, ROWS), "float32")]
    x, ids = make_inputs()
    first = model.run([np.asfortranarray(x), np.repeat(ids, 2)[::2]])
    model.run(make_inputs(2))  # results survive the next run
    for output, right in zip(first, expected(x, ids), strict=True):
        np.testing.assert_array_equal(output, right)
    with pytest.raises(ValueError, match="1 arrays given for 2 inputs"):
        model.run([x])


def test_threads_get_their_own_results(model):
    wrong = []

    def work(seed):
        for repeat in range(10):
            arrays = make_inputs(100 * seed + repeat)
            if not all(map(np.array_equal, model.run(arrays), expected(*arrays))):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_model_does_not_run(lite, graphs):
    model = lite.load(graphs / "graph.mindir")
    assert model.usable
    model.close()
    model.close()
    assert not model.usable
    with pytest.raises(RuntimeError, match="graph.mindir: the model is closed"):
        model.run(make_inputs())


def test_a_forked_process_loads_its_own(model, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert not model.usable
    with pytest.raises(EngineError, match="from which this process .* was forked: load it in this process"):
        model.run(make_inputs())


def test_a_run_that_fails_ends_the_model(model, monkeypatch):
    def fail(*_):
        raise RuntimeError("\n----------\n- Out of memory:\n----------\nmore\nand more")

    monkeypatch.setattr(model, "_cell", fail)
    with pytest.raises(EngineError) as caught:
        model.run(make_inputs())
    assert str(caught.value).endswith("graph.mindir: MindSpore does not run it: - Out of memory:")
    with pytest.raises(EngineError, match="a run of it has not ended well: load it again"):
        model.run(make_inputs())


def newer(graphs):
    model = ModelProto.FromString((graphs / "graph.mindir").read_bytes())
    model.mind_ir_version = NEWER
    return model.SerializeToString()


@pytest.mark.parametrize("change, message", [
    (newer, f"MindSpore {mindspore.__version__} does not load it: "),
    (lambda graphs: b"", "is not MindIR: it is cut or damaged; export the bundle again"),
    (lambda graphs: b"no protobuf" * 9, "is not MindIR: it is cut or damaged"),
    (lambda graphs: (graphs / "graph.mindir").read_bytes()[:-40], "is not MindIR: it is cut or damaged"),
], ids=["newer", "empty", "text", "cut"])  # fmt: skip
def test_files_that_it_refuses(change, message, lite, graphs, tmp_path):
    path = tmp_path / "graph.mindir"
    path.write_bytes(change(graphs))
    with pytest.raises(EngineError) as caught:
        lite.load(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device, message", [
    ("ascend", "does not compute on Ascend 0 here: .*: use another --device"),
    ("ascend:1", "does not compute on Ascend 1 here"),
    ("gpu", "unknown device 'gpu'"),
])  # fmt: skip
@pytest.mark.skipif(os.path.exists("/usr/local/Ascend"), reason="an Ascend machine may well run it")
def test_a_device_that_is_not_there(device, message, lite, graphs):
    with pytest.raises(EngineError, match=message) as caught:
        lite.load(graphs / "graph.mindir", device=device)
    assert "\n" not in str(caught.value)


def test_without_mindspore(bundles):
    code = ("import sys; sys.modules['mindspore'] = None; from kandinsky_mindir.runner.cli import main; "
            f"sys.exit(main(['verify', {str(bundles('narrow'))!r}, '--engine', 'mindspore']))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "the engine 'mindspore' needs MindSpore" in result.stderr and "pip install" in result.stderr


def test_nothing_else_imports_it():
    code = "import sys, kandinsky_mindir.runner.engine as e; e.create('bridge'); print('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_bundle_is_right_on_it(bundles, lite):
    verdicts = list(verify(Models(Bundle(bundles("narrow")), lite, keep_loaded=False), part="text_encoder", files=False))
    assert len(verdicts) == 1 and all(verdict.right for verdict in verdicts), verdicts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["narrow", "micro", "family"])
def test_verify(name, bundles, capsys):
    assert main(["verify", str(bundles(name)), "--engine", "mindspore"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == len(Bundle(bundles(name)).manifest.graphs) and all(row.endswith(" right") for row in rows)


@pytest.mark.slow
def test_pictures_are_the_bridges(bundles):
    """Both compute the same graphs in float32 in another order, so LEAST_PSNR holds as it does against diffusers."""
    made = []
    for name in ("bridge", "mindspore"):
        pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("micro"), engine=name)
        pipeline.set_progress_bar_config(disable=True)
        options = dict(output_type="np", num_inference_steps=4)
        drawn = pipeline("a tiger", prior_num_inference_steps=4, generator=3, **options).images[0]
        embeds = pipeline.prior_pipe.interpolate(["a cat", picture()], [0.4, 0.6], num_inference_steps=3, generator=3)
        mixed = pipeline.decoder_pipe(*embeds, generator=3, **options).images[0]
        made.append((drawn, mixed))
    for ours, theirs in zip(*made):
        assert ours.std() > 0.01 and psnr(ours, theirs) >= LEAST_PSNR
