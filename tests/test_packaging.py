"""A wheel built from the tree works outside it, with the runner's few dependencies alone."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("src", "models", "export", "runner", "pyproject.toml", "README.md", "LICENSE")


def call(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = ROOT / name, folder / "tree" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    result = call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, folder / "tree")
    assert result.returncode == 0, result.stderr
    return next(folder.glob("kandinsky_mindir-*.whl"))


def test_wheel_holds_the_sources_of_the_bridge(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for source in (ROOT / "runner" / "engine" / "native").glob("*.cc"):
        assert f"kandinsky_mindir/runner/engine/native/{source.name}" in names
    assert not [name for name in names if name.startswith(("tests", "artifacts"))]
    for package in ("models", "export", "runner"):
        expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert expected <= {name.removeprefix("kandinsky_mindir/") for name in names}


@pytest.mark.slow
def test_base_install_runs_a_bundle_and_nothing_else(wheel, bundles, tmp_path):
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    installed = call(python, "-m", "pip", "install", "--quiet", wheel)
    assert installed.returncode == 0, installed.stderr
    packages = {line.split("==")[0].lower() for line in call(python, "-m", "pip", "freeze").stdout.splitlines()}
    assert {"numpy", "pillow", "tokenizers", "tqdm"} <= packages
    assert not packages & {"mindspore", "torch", "transformers", "diffusers"}

    command = tmp_path / "venv" / "bin" / "kandinsky-mindir"
    assert "generate" in call(command, "--help").stdout
    made = call(command, "generate", bundles("narrow"), "a cat", "--seed", 1, "--steps", 2, "--prior-steps", 2, "--quiet",
                "--output", tmp_path / "cat.png", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert Image.open(tmp_path / "cat.png").size == (16, 16)
    refused = call(command, "export", "--prior", "x", "--decoder", "y", "--output", "z", cwd=tmp_path)
    assert refused.returncode == 2 and "pip install '.[export]'" in refused.stderr


def test_the_build_backend_knows_the_licence_as_an_expression():
    """setuptools reads project.license = "Apache-2.0" (PEP 639) from version 77 on; 76 refuses it."""
    root = Path(__file__).parents[1]
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert isinstance(project["project"]["license"], str)
    (requirement,) = map(Requirement, project["build-system"]["requires"])
    assert requirement.name == "setuptools" and not requirement.specifier.contains("76.1.0")
    assert requirement.specifier.contains("77.0.1")
