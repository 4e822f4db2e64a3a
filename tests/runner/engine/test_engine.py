"""The engines run a small graph, which MindSpore compiles here, to the last bit; their errors are one line."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import small_graph
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.engine import process as process_module
from small_graph import COLUMNS, ROWS, expected, make_inputs


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return small_graph.write(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def bridge():
    return engine.create("bridge")


@pytest.fixture
def model(bridge, graphs):
    with bridge.load(graphs / "lowered.mindir", threads=1) as loaded:
        yield loaded


def pid_of(model):
    return model._process.pid


def test_describes_inputs_and_outputs(model):
    assert [(spec.shape, spec.dtype) for spec in model.inputs] == [((ROWS, COLUMNS), "float32"), ((ROWS,), "int32")]
    assert [(spec.shape, spec.dtype) for spec in model.outputs] == [
        ((ROWS, COLUMNS), "float32"),
        ((COLUMNS, ROWS), "float32"),
    ]
    assert len({spec.name for spec in model.inputs}) == 2


def test_runs_next_to_mindspore(model):
    assert "mindspore" in sys.modules  # its libraries and Lite's cannot share a process
    x, ids = make_inputs()
    for output, right in zip(model.run([x, ids]), expected(x, ids)):
        np.testing.assert_array_equal(output, right)


def test_takes_arrays_of_any_layout(model):
    x, ids = make_inputs()
    strided = np.repeat(ids, 2)[::2]
    for output, right in zip(model.run([np.asfortranarray(x), strided]), expected(x, ids)):
        np.testing.assert_array_equal(output, right)


def test_results_survive_the_next_run(model):
    first = make_inputs(1)
    outputs = model.run(first)
    model.run(make_inputs(2))
    for output, right in zip(outputs, expected(*first)):
        np.testing.assert_array_equal(output, right)


def test_threads_get_their_own_results(model):
    wrong = []

    def work(seed):
        for repeat in range(20):
            arrays = make_inputs(100 * seed + repeat)
            if not all(map(np.array_equal, model.run(arrays), expected(*arrays))):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, ids: [x], "1 arrays given for 2 inputs"),
        (lambda x, ids: [x[:2], ids], r"must be float32 of shape \(3, 4\), not float32 of \(2, 4\)"),
        (lambda x, ids: [x, ids.astype(np.int64)], r"must be int32 of shape \(3,\), not int64"),
        (lambda x, ids: [x.tolist(), ids], "must be a NumPy array, not list"),
    ],
)
def test_arrays_that_do_not_fit(model, change, message):
    with pytest.raises(ValueError, match=message):
        model.run(change(*make_inputs()))


def test_close_frees_the_process(bridge, graphs):
    model = bridge.load(graphs / "lowered.mindir")
    pid = pid_of(model)
    model.close()
    model.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="lowered.mindir: the model is closed"):
        model.run(make_inputs())


def test_a_forgotten_model_is_freed(bridge, graphs):
    model = bridge.load(graphs / "lowered.mindir")
    pid = pid_of(model)
    del model
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_models_end_with_the_interpreter(graphs):
    script = (
        "from kandinsky_mindir.runner import engine\n"
        f"model = engine.create('bridge').load({str(graphs / 'lowered.mindir')!r})\n"
        "print(model._process.pid)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.stdout), 0)


def test_a_killed_process_is_an_error(model):
    os.kill(pid_of(model), signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(EngineError, match="lowered.mindir: MindSpore Lite was killed, .* memory"):
            model.run(make_inputs())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_an_exception_in_a_run_ends_the_model(model, error):
    """Its answer, which may be under way, would be taken for the next run's."""
    def interrupt(*_):
        raise error

    os.kill(pid_of(model), signal.SIGSTOP)  # a run without end
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(error):
            model.run(make_inputs())
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not model.usable
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of(model), 0)
    with pytest.raises(EngineError, match="lowered.mindir: a run of it has not ended: load it again"):
        model.run(make_inputs())


def damage(graphs, kind):
    """A file in the folder `graphs` that cannot be loaded, or the path of one that is not there."""
    whole = (graphs / "lowered.mindir").read_bytes()
    contents = {"cut.mindir": whole[: len(whole) // 2], "empty.mindir": b"", "text.ms": b"no flatbuffer" * 99}
    if kind in contents:
        (graphs / kind).write_bytes(contents[kind])
    return graphs / kind


@pytest.mark.parametrize(
    "kind, message",
    [
        ("graph.mindir", "only support the maximum mind ir version: 1"),
        ("cut.mindir", "ParseFromArray failed"),
        ("empty.mindir", "Failed to read buffer"),
        ("text.ms", "model buffer is invalid"),
        ("missing.mindir", "no such file"),
    ],
)
def test_files_that_lite_refuses(bridge, graphs, capfd, kind, message):
    path = damage(graphs, kind)
    with pytest.raises(EngineError) as caught:
        bridge.load(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_log_is_shown_when_asked_for(bridge, graphs, capfd, monkeypatch):
    monkeypatch.setenv("GLOG_v", "3")
    bridge.load(graphs / "lowered.mindir").close()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("GLOG_v", "2")
    bridge.load(graphs / "lowered.mindir").close()
    assert "[WARNING]" in capfd.readouterr().err


@pytest.mark.parametrize("given, passed", [
    ({}, "glibc.malloc.hugetlb=1"),
    ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0"),
])  # fmt: skip
def test_large_pages_leave_the_users_settings(given, passed):
    """Of two settings that differ, the C library takes the last."""
    assert process_module._with_large_pages({"HOME": "/", **given}) == {"HOME": "/", "GLIBC_TUNABLES": passed}


@pytest.mark.skipif(Path("/usr/local/Ascend").exists(), reason="an Ascend machine may well run it")
def test_ascend_reaches_lite(bridge, graphs):
    with pytest.raises(EngineError, match="its Ascend plugin does not open: .* CANN"):
        bridge.load(graphs / "lowered.mindir", device="ascend:0")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "ascend:x"}, "unknown device"),
        ({"device": "cpu:1"}, "unknown device"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
    ],
)
def test_bad_options(bridge, graphs, options, message):
    with pytest.raises(UserError, match=message):
        bridge.load(graphs / "lowered.mindir", **options)


def test_engine_names():
    assert engine.create("auto").name == "bridge"
    with pytest.raises(EngineError, match="unknown engine 'onnx': use one of auto, bridge, mindspore, vendor"):
        engine.create("onnx")


def test_damaged_runtime_names_the_library(bridge, graphs, tmp_path):
    lame = tmp_path / "bridge"  # away from its libraries
    shutil.copy(bridge.runtime.bridge, lame)
    engine_without_libraries = type(bridge)()
    engine_without_libraries.runtime = bridge.runtime._replace(bridge=lame)
    with pytest.raises(EngineError, match="ended with status 127: .*libmindspore-extendrt_python.so"):
        engine_without_libraries.load(graphs / "lowered.mindir")
