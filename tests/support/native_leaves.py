"""The parts of runner/native that need no bundle, compiled into a program of the tests and called from Python."""

import hashlib
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine.compiler import find_compiler

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "runner" / "native"
PARTS = (
    "ancestral_schedules", "bpe", "conditions", "dpm_solver", "errors", "euler_schedules", "exif", "generators", "images", "jpeg_reader",
    "numpy_generators", "png_file", "png_reader", "prediction", "preprocessing", "resample", "scheduler_classes", "scheduler_formulas",
    "scheduler_options", "scheduler_spacing", "schedulers", "sha256", "split_pattern", "text_steps", "tokenizer",
    "torch_generator", "unicode", "whole_file",
)  # fmt: skip
LIBRARIES = {"nlohmann/json.hpp": "nlohmann-json3-dev", "utf8proc.h": "libutf8proc-dev", "png.h": "libpng-dev",
             "jpeglib.h": "libjpeg-dev", "zlib.h": "zlib1g-dev"}  # a header, and the Debian package that has it
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
# The same flags for tests and for fuzzing, whose coverage fuzz_driver.cc counts: objects are compiled once.
SANITIZED = dict(flags=("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize-coverage=trace-pc", "-g1"),
                 beside=("fuzz_driver",))


def require_libraries():
    """Skip where a library is missing."""
    text = "".join(f"#include <{name}>\n" for name in ("cstdio", *LIBRARIES))
    command = [*find_compiler(), "-std=c++17", "-fsyntax-only", "-xc++", "-"]
    if subprocess.run(command, input=text, text=True, capture_output=True).returncode:
        pytest.skip("a library of the C++ program is missing: apt-get install " + " ".join(LIBRARIES.values()))


def source(part):
    """A part's source, in whatever folder of runner/native it lies."""
    (found,) = NATIVE.rglob(f"{part}.cc")
    return found


def compiled(main, cache, flags=(), more=(), beside=()):
    """The program of `main` and what is `beside` it (sources of tests/support/native), all parts, and `more` of them. Objects
    are kept in `cache`, by digest."""
    cache = Path(cache)
    headers = b"".join(path.read_bytes() for path in sorted(NATIVE.rglob("*.h")))
    flags = [*FLAGS, *flags]

    def name_of(source, *more):
        content = source.read_bytes() + b"".join(more) + repr([*find_compiler(), *flags]).encode()
        return f"{source.stem}-{hashlib.sha256(content).hexdigest()[:16]}"

    def compile_one(source):
        target = cache / f"{name_of(source, headers)}.o"
        if not target.exists():
            partial = target.with_suffix(".partial")
            run([*find_compiler(), *flags, f"-I{NATIVE}", "-c", str(source), "-o", str(partial)])
            partial.rename(target)
        return target

    mains = [Path(__file__).parent / "native" / f"{name}.cc" for name in (main, *beside)]
    sources = [*mains, *map(source, (*PARTS, *more))]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    program = cache / name_of(sources[0], *(path.name.encode() for path in objects))
    if not program.exists():
        partial = program.with_suffix(".partial")
        run([*find_compiler(), *flags, *map(str, objects), "-o", str(partial), "-lutf8proc", "-lpng", "-ljpeg", "-lz"])
        partial.rename(program)
    return program


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:4000]


class Leaves:
    """A running program: `call(command, part, ...)` gives the parts of its answer. UserError for an error of the program's."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, command, *parts):
        message = [part if isinstance(part, bytes) else str(part).encode() for part in (command, *parts)]
        frames = [struct.pack("<I", len(message))] + [struct.pack("<I", len(part)) + part for part in message]
        self.process.stdin.write(b"".join(frames))
        self.process.stdin.flush()
        status, *answer = [self._read(self._number()) for _ in range(self._number())]
        if status == b"error":
            raise UserError(answer[0].decode())
        if status == b"domain":
            raise ZeroDivisionError(answer[0].decode())
        return answer

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def _number(self):
        return struct.unpack("<I", self._read(4))[0]

    def _read(self, size):
        data = self.process.stdout.read(size)
        assert len(data) == size, f"the program ended with status {self.process.wait(60)}"
        return data
