"""The C++ library and program (runner/native), built once for its sources and kept between runs."""

import hashlib
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import Request
from kandinsky_mindir.runner.pictures.provenance import Provenance
from kandinsky_mindir.runner.tasks import PICTURES
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "runner" / "native"
PACKAGES = "cmake g++ nlohmann-json3-dev libcli11-dev libutf8proc-dev libpng-dev libjpeg-dev zlib1g-dev liblzma-dev"


def built(kept, *options):
    """The folder with `kandinsky` and `libkandinsky_mindir.so`, in an optimized build or as CMake's `options` say."""
    content = [path.name.encode() + path.read_bytes() for path in sorted(NATIVE.rglob("*.*")) if path.suffix != ".md"]
    digest = hashlib.sha256(b"\0".join(content) + repr(options).encode()).hexdigest()[:12]
    return kept.get(f"native-{digest}", lambda folder: build(folder, *options))


def build(folder, *options):
    """Skips where a tool or a library is missing."""
    try:
        made = run("cmake", "-S", NATIVE, "-B", folder, f"-DKANDINSKY_VERSION={version('kandinsky-mindir')}",
                   "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", *options)  # fmt: skip
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


def arguments(fields):
    """Of the C++ program, for a request."""
    names = {"num_inference_steps": "--steps", "prior_num_inference_steps": "--prior-steps", "num_images_per_prompt": "--images",
             "image": "--init-image", "mask_image": "--mask"}
    found = []
    for name, value in fields.items():
        if name in ("task", "prompt", "items"):
            continue
        option = names.get(name, f"--{name.replace('_', '-')}")
        values = value if isinstance(value, list) else [value]
        if name in PICTURES:
            values = [picture["image"] for picture in value]
        found += [option] if value is True else [option, *(values[:1] if name == "negative_prompt" else values)]
    return found


def made_by(kandinsky, bundle, fields, folder):
    """The pictures that the C++ program makes, and the recipe of the first."""
    folder.mkdir(exist_ok=True)
    if fields["task"] == "interpolate":
        subject = [word for item in fields["items"]
                   for word in (f"--{'text' if 'text' in item else 'image'}", item.get("text", item.get("image")), item["weight"])]
        command = ["interpolate", bundle, *subject]
    else:
        command = ["generate", bundle, *fields["prompt"]]
    result = kandinsky(*command, *arguments(fields), "--output", folder / "picture.png")
    assert result.returncode == 0, result.stderr
    paths = result.stdout.splitlines()
    return [np.asarray(Image.open(path)) for path in paths], Provenance.read(paths[0])


def check(kandinsky, pipeline, bundle, fields, folder):
    """The program's pictures are Python's, bit for bit, and its recipe is what Python needs to make them again."""
    request = Request.from_dict(fields)
    expected = [np.asarray(picture.image) for picture in pipeline.make(request)]
    found, recipe = made_by(kandinsky, bundle, fields, folder)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)
    (again, *_) = pipeline.make(recipe.request)  # what Python makes of the recipe
    np.testing.assert_array_equal(np.asarray(again.image), expected[0])
