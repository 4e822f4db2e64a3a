"""The vendor's package as an engine: the only Python that it installs into is 3.7."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.engine import EngineError, runtime
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
