"""The source is clean by the linter and the type checker, as pyproject.toml sets them up."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", [("ruff", "check", "--quiet", "--output-format", "concise"), ("mypy",)], ids=["ruff", "mypy"])
def test_source_is_clean(command):
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
