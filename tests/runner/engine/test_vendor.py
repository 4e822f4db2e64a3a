"""The vendor's package as an engine: the only Python that it installs into is 3.7."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.engine import EngineError, runtime
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import verify
from lite_2_7 import package as lite_2_7_package
from small_graph import expected, make_inputs, write

VENDOR_SOURCE = Path(engine.__file__).with_name("vendor.py")
PYTHON37_SCRIPT = """
import importlib.util, sys
import numpy as np
source, graph, folder = sys.argv[1:]
spec = importlib.util.spec_from_file_location("vendor", source)
vendor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vendor)
engine = vendor.VendorEngine()
with engine.load(graph, threads=1) as model:
    inputs = [np.load(folder + "/input{}.npy".format(i)) for i in range(2)]
    for i, array in enumerate(model.run([np.asfortranarray(inputs[0]), inputs[1]])):
        np.save(folder + "/output{}.npy".format(i), array)
    for bad in (inputs[:1], inputs[::-1]):
        try:
            model.run(bad)
        except ValueError:
            pass
        else:
            sys.exit("took arrays that do not fit")
bad = [(graph + "x", {}), (graph, {"device": "ascend"}), (graph, {"device": "gpu"}), (graph, {"threads": 0})]
for path, options in bad:
    try:
        engine.load(path, **options)
    except RuntimeError as error:
        assert "\\n" not in str(error)
    else:
        sys.exit("loaded {} with {}".format(path, options))
print(engine.version)
"""


def test_vendor_package_missing():
    with pytest.raises(EngineError, match="'vendor' needs the mindspore_lite package"):
        engine.create("vendor")


def find_python37():
    candidates = [shutil.which("python3.7"), *sorted(Path.home().glob(".pyenv/versions/3.7.*/bin/python3.7"))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return str(candidate)
    return None


@pytest.fixture
def python37_with_lite():
    """A function that runs a script, with arguments, under a Python 3.7 that has NumPy and the vendor's package."""
    python = find_python37()
    if python is None or os.uname().machine != "x86_64":
        pytest.skip("no Python 3.7 on x86-64 here, for which the vendor's wheel is made")
    lite = os.environ.get(runtime.WHEEL_VARIABLE, f"mindspore-lite=={runtime.VERSION}")
    with tempfile.TemporaryDirectory() as packages:  # half a gigabyte: pytest would keep it in its own folders
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--target", packages, "numpy", lite]
        result = subprocess.run(install, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"pip could not install NumPy and {lite}: {result.stderr.splitlines()[-1]}")
        quiet = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
        yield lambda *words: subprocess.run(
            [python, "-c", *map(str, words)], capture_output=True, text=True, env={**quiet, "PYTHONPATH": packages}
        )


def test_vendor_engine_under_python37(python37_with_lite, tmp_path):
    """What is exact is so through the vendor's package, too."""
    arrays = make_inputs()
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"input{i}.npy", array)
    result = python37_with_lite(PYTHON37_SCRIPT, VENDOR_SOURCE, write(tmp_path) / "lowered.mindir", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{runtime.VERSION}\n", "")
    for i, right in enumerate(expected(*arrays)):
        np.testing.assert_array_equal(np.load(tmp_path / f"output{i}.npy"), right)


@pytest.fixture
def lite_2_7(monkeypatch):
    """A function that installs the stand-in for a machine with these devices, and returns its package."""
    def install(*devices, version="2.7.0"):
        package = lite_2_7_package(devices, version)
        monkeypatch.setitem(sys.modules, "mindspore_lite", package)
        return package

    return install


def test_a_current_version_reads_what_mindspore_wrote(lite_2_7, bundles, tmp_path):
    lite_2_7("cpu")
    lite = engine.create("vendor")
    assert (lite.version, lite.reads) == ("2.7.0", "mindir")
    verdicts = list(verify(Models(Bundle(bundles("narrow")), lite, keep_loaded=False), part="text_encoder", files=False))
    assert len(verdicts) == 1 and all(verdict.right for verdict in verdicts), verdicts
    x, ids = make_inputs()
    with lite.load(write(tmp_path) / "graph.mindir", threads=3) as model:
        assert [tuple(spec) for spec in model.inputs][1][1:] == ((3,), "int32")
        with pytest.raises(ValueError, match="must be int32"):
            model.run([x, ids.astype(np.int64)])


@pytest.mark.parametrize("version, form", [("2.0.0", "lite"), ("2.2.14", "lite"), ("2.3.0", "mindir"), ("2.10.0rc1", "mindir")])
def test_each_version_gets_the_form_that_it_reads(version, form, lite_2_7):
    lite_2_7("cpu", version=version)
    assert engine.create("vendor").reads == form


def test_ascend_is_told_its_device_and_the_graph_s_configuration(lite_2_7, tmp_path):
    package, graph = lite_2_7("cpu", "ascend"), write(tmp_path) / "graph.mindir"
    lite = engine.create("vendor")
    lite.load(graph, device="ascend:2", threads=1).close()
    (tmp_path / "graph.cfg").write_text("[ascend_context]\n")
    lite.load(graph, device="ascend", threads=1).close()
    lite.load(graph, threads=1).close()
    told = [(context.target, context.ascend.precision_mode, config) for _, context, config in package.built]
    assert told == [(["ascend"], "enforce_fp16", ""), (["ascend"], "enforce_origin", "[ascend_context]\n"), (["cpu"], "enforce_fp16", "")]
    assert package.built[0][1].ascend.device_id == 2


def test_a_device_that_is_not_there_is_one_line(lite_2_7, tmp_path):
    lite_2_7("cpu")
    with pytest.raises(EngineError) as caught:
        engine.create("vendor").load(write(tmp_path) / "graph.mindir", device="ascend")
    assert "graph.mindir: build_from_file failed! Error is Common error code.; GLOG_v=3" in str(caught.value)
    assert "\n" not in str(caught.value)
