"""The C++ library and program (runner/native), built once for its sources and kept between runs."""

import hashlib
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "runner" / "native"
PACKAGES = "cmake g++ nlohmann-json3-dev libcli11-dev libutf8proc-dev libpng-dev libjpeg-dev zlib1g-dev liblzma-dev"


def built(kept, *options):
    """The folder with `kandinsky` and `libkandinsky_mindir.so`, in an optimized build or as CMake's `options` say."""
    content = [path.name.encode() + path.read_bytes() for path in sorted(NATIVE.rglob("*.*")) if path.is_file()]
    digest = hashlib.sha256(b"\0".join(content) + repr(options).encode()).hexdigest()[:12]
    return kept.get(f"native-{digest}", lambda folder: build(folder, *options))


def build(folder, *options):
    """Skips where a tool or a library is missing."""
    try:
        made = run("cmake", "-S", NATIVE, "-B", folder, f"-DKANDINSKY_VERSION={version('kandinsky-mindir')}", *options)
    except FileNotFoundError:
        made = None
    if made is None or made.returncode:
        pytest.skip(f"the C++ program cannot be configured: apt-get install {PACKAGES}")
    made = run("cmake", "--build", folder, "--parallel", str(len(os.sched_getaffinity(0))), "--target", "all", "example")
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="surrogateescape", **options)


class Program:
    """`kandinsky` in the folder `folder`, over the programs that the runtime of `engine` has."""

    def __init__(self, folder, engine):
        self.folder, self.path = folder, folder / "kandinsky"
        self.environment = {**os.environ, "KANDINSKY_MINDIR_BRIDGE": str(engine.runtime.bridge)}

    def __call__(self, *arguments, cwd=None, **changes):
        """The finished process, whatever its status."""
        return run(self.path, *arguments, cwd=cwd, env={**self.environment, **changes}, timeout=300)

    def start(self, *arguments, cwd=None):
        return subprocess.Popen(list(map(str, [self.path, *arguments])), cwd=cwd, env=self.environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
