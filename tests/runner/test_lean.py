"""The runner stays lean: its imports are few and quick, and none of the frameworks is needed to run a bundle."""

import re
import subprocess
import sys
from pathlib import Path

BLOCKED = ("mindspore", "torch", "transformers", "diffusers", "safetensors")

BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
"""


def python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)


def test_blocker_blocks():
    assert "is blocked" in python(BLOCK + "import torch").stderr


def test_runner_imports_none_of_the_frameworks():
    code = BLOCK + f"""
import pkgutil, importlib
import kandinsky_mindir.runner as runner
for module in pkgutil.walk_packages(runner.__path__, runner.__name__ + "."):
    importlib.import_module(module.name)
print(sorted(set(name.split(".")[0] for name in sys.modules) & set({BLOCKED!r})))
"""
    result = python(code)
    assert result.stdout.strip() == "[]", result.stderr


def test_pipeline_runs_with_the_frameworks_blocked(bundles):
    code = BLOCK + """
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
pipeline = KandinskyV22CombinedPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
print(pipeline("a cat", generator=0, num_inference_steps=1, prior_num_inference_steps=1).images[0].size)
"""
    result = python(code, str(bundles("narrow")))
    assert result.stdout.strip() == "(16, 16)", result.stderr


def test_import_is_quick():
    """Under 0.3 s of processor time beyond the interpreter's own start; the best of several, since machines are noisy."""
    code = "import time; start = time.process_time(); import kandinsky_mindir.runner; print(time.process_time() - start)"
    assert min(float(python(code).stdout) for _ in range(5)) < 0.3


def test_the_version_is_the_packages():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', text, re.MULTILINE)
    assert python("import kandinsky_mindir.runner as runner; print(runner.__version__)").stdout.strip() == version


def test_every_public_name_is_there():
    code = "import kandinsky_mindir.runner as runner; print(all(getattr(runner, name) for name in runner.__all__))"
    assert python(code).stdout.strip() == "True"
