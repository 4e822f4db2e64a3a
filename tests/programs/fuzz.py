"""Fuzz what comes from outside: every input is taken or refused by a UserError (a command line: in one line, with status 2).

  python tests/programs/fuzz.py TARGET BUNDLE [--seconds 60] [--seed 0]
  TARGET: manifest safetensors mindir ms layout command

Inputs are mutations of right ones, taken from BUNDLE; a mutation that reaches lines of this package that none before it
reached is kept and mutated further. Any other exception is a finding: it is printed once for each place that raises it, with
the input, and the status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import kandinsky_mindir.runner
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME, Manifest, sealed
from kandinsky_mindir.runner.bundle.ms_layout import HOLE, LITE_WEIGHTS, UNIT, WEIGHTS, Layout, Stretch
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.upkeep.replay import read_example

HOME = str(Path(kandinsky_mindir.runner.__file__).parents[1])
VALUES = [None, True, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, float("nan"), float("inf"), "", "..", "/", "\0", "é", "\ud800",
          [], [[]], {}, {"": 0}, [1] * 70, "x" * 5000]
BYTES = [b"", b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"[" * 3000, b'"', b"1e999", b"\n"]


def mutate(rng: random.Random, given: Any) -> Any:
    return mutate_bytes(rng, given) if isinstance(given, bytes) else mutate_json(rng, given)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 1, 4, 40, 1000)))
        other = rng.randrange(len(data) + 1)
        new = rng.choice((bytes([rng.randrange(256)]), rng.choice(BYTES), data[other : other + end - at]))
        data = data[:at] + new + data[end:]
    return data


def mutate_json(rng: random.Random, value: Any) -> Any:
    """Somewhere in it another value, a key more or less, or a piece of itself."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        parent = value
        while isinstance(parent, (dict, list)) and parent:
            key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
            if not isinstance(parent[key], (dict, list)) or not parent[key] or rng.random() < 0.2:
                break
            parent = parent[key]
        else:
            return copy.deepcopy(rng.choice(VALUES))
        action = rng.randrange(4)
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, dict):
            parent[rng.choice(["", "../x", "a\nb", "x" * 300])] = parent[key]
        else:
            parent[key] = copy.deepcopy(rng.choice([*VALUES, value, parent[key]]))  # never itself
    return value


class Target:
    """seeds: right inputs. mutate(random, input) -> another. run(input): raises UserError, or what is a finding."""

    def __init__(self, seeds: list, run: Callable[[Any], object], mutate: Callable[[random.Random, Any], Any] = mutate):
        self.seeds, self.run, self.mutate = seeds, run, mutate


def manifest(bundle: Path, _: Path) -> Target:
    text = (bundle / FILE_NAME).read_text()

    def run(given):
        Manifest.parse(given.decode(errors="replace") if isinstance(given, bytes) else
                       sealed(given) if isinstance(given, dict) else json.dumps(given))

    return Target([json.loads(text), text.encode()], run)


def safetensors(_: Path, folder: Path) -> Target:
    from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles

    header = {name: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]} for name, dtype, shape, begin, end in
              (("a", "F32", [2, 3], 0, 24), ("b", "F16", [1, 2], 24, 28), ("c", "BF16", [0], 28, 28))}
    path = folder / "model.safetensors"

    def run(given):
        if not isinstance(given, bytes):
            text = json.dumps(given).encode()
            given = struct.pack("<Q", len(text)) + text + bytes(28)
        path.write_bytes(given)
        files = TensorFiles(folder, "model")
        for name in "abc":
            files.read(name)

    text = json.dumps(header).encode()
    return Target([header, struct.pack("<Q", len(text)) + text + bytes(28)], run)


def mindir(bundle: Path, _: Path) -> Target:
    """Mutated as bytes, and as the fields of the message."""
    from google.protobuf import json_format
    from kandinsky_mindir.export import bisect
    from kandinsky_mindir.export.contents.seal_examples import example
    from kandinsky_mindir.export.graphs.lowering import lower
    from kandinsky_mindir.export.graphs.node_layers import seams
    from kandinsky_mindir.export.graphs.reader import read_model
    from mindspore.train.mind_ir_pb2 import ModelProto

    opened = Bundle(bundle)
    graph = opened.manifest.find("prior_context")
    sample = read_example(opened, graph).inputs

    def run(given):
        if isinstance(given, dict):
            try:
                given = json_format.ParseDict(given, ModelProto()).SerializeToString()
            except Exception:  # no message has such fields
                return
        model = read_model(given, graph.mindir)
        example(model, bundle / graph.part, sample)
        bisect.cut(lower(model), seams(model))

    data = opened.mindir(graph.mindir)
    return Target([json_format.MessageToDict(ModelProto.FromString(data)), data], run)


def ms(bundle: Path, folder: Path) -> Target:
    from kandinsky_mindir.export.contents.ms_files import WeightStore

    opened = Bundle(bundle)
    graph = min(opened.manifest.graphs, key=lambda graph: opened.manifest.files[graph.ms[0]].size)
    with Layout.read(bundle / graph.ms[0]).assemble(bundle / graph.ms[0]) as model:
        seed = Path(model.path).read_bytes()

    def run(given):
        (folder / LITE_WEIGHTS).unlink(missing_ok=True)
        (folder / "graph.ms").write_bytes(given)
        WeightStore(folder, {}).split(folder / "graph.ms")

    return Target([seed], run)


def layout(_: Path, folder: Path) -> Target:
    import lzma

    (folder / WEIGHTS).write_bytes(bytes(range(256)) * (UNIT // 128))
    (folder / LITE_WEIGHTS).write_bytes(bytes(64))
    path = folder / "graph.ms.layout"
    stretches = [Stretch(4, WEIGHTS, 64, 24), Stretch(28, LITE_WEIGHTS, 1, 5), Stretch(34, HOLE, 0, UNIT - 34),
              Stretch(UNIT, WEIGHTS, UNIT, UNIT)]
    right = Layout(stretches, b"head" + b"!")

    def run(given):
        if not isinstance(given, bytes):  # the table and the skeleton
            table, *rest = given if isinstance(given, list) and given else [given]
            given = json.dumps(table).encode() + b"\n" + str(rest).encode(errors="replace")
        path.write_bytes(given if given[:1] == b"\xfd" else lzma.compress(given))
        with Layout.read(path).assemble(path):
            pass

    table = [list(stretch) for stretch in right.stretches]
    return Target([[table, "head!"], right.dump(), lzma.decompress(right.dump())], run)


def command(bundle: Path, folder: Path) -> Target:
    words = ["generate", "interpolate", "inspect", "verify", "check", "runtime", "install", "info", "export", str(bundle), "a cat",
             *["--help", "--steps", "--prior-steps", "--guidance-scale", "--guidance-interval", "--seed", "--size", "--output"],
             *["--images", "--grid", "--like", "--scheduler", "--engine", "--device", "--threads", "--quiet", "--text", "--image"],
             *["--rng", "--prior", "--decoder", "--files", "--part", "--lite", "--negative-prompt", "--tolerance", "0", "1", "-1"],
             *["nan", "1e400", "64x64", "x", "0x0", "picture.png", "cpu", "ascend:99999999999999999999", "/"],
             "", "\0", "\ud800", "9" * 5000, "a\nb", str(folder)]
    seeds = [["generate", str(bundle), "a cat", "--steps", "1", "--prior-steps", "1"], ["inspect", str(bundle)],
             ["interpolate", str(bundle), "--text", "a cat", "1"], ["verify", str(bundle), "--part", "unet"],
             ["check", str(bundle), "--lite", "2.0.0", "--device", "cpu"], ["runtime", "info"],
             ["export", "--prior", str(folder), "--decoder", str(folder), "--output", "b"]]

    def run(given):
        errors, home = io.StringIO(), os.getcwd()
        stop = UserError("Lite would run now")
        os.chdir(folder)
        with (contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors),
              mock.patch("kandinsky_mindir.runner.engine.create", side_effect=stop),
              mock.patch("kandinsky_mindir.runner.engine.runtime.install", side_effect=stop)):
            try:
                status = cli.main(given)
            except SystemExit as exit:  # argparse
                status = exit.code
            finally:
                os.chdir(home)
        said = [line for line in errors.getvalue().splitlines() if "warning: " not in line]
        assert (status, len(said)) in ((0, 0), (2, 1)), f"status {status}, {said}"

    def mutate_words(rng, given):
        given = list(given)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(given) + 1)
            given[at : at + rng.randrange(2)] = rng.choices(words, k=rng.randrange(3))
        return given

    return Target(seeds, run, mutate_words)


TARGETS = {make.__name__: make for make in (manifest, safetensors, mindir, ms, layout, command)}


def fuzz(target: Target, seconds: float, seed: int = 0) -> tuple[int, int, dict[str, tuple[Any, str]]]:
    """Returns (inputs tried, lines reached, findings: the place that raised it -> (input, traceback))."""
    rng, findings, lines, tried = random.Random(seed), {}, set(), 0
    corpus, waiting = [], list(target.seeds)
    deadline = time.monotonic() + seconds
    while waiting or time.monotonic() < deadline:
        given = waiting.pop() if waiting else target.mutate(rng, rng.choice(corpus))
        reached, tried = set(), tried + 1
        sys.settrace(_tracer(reached))
        try:
            target.run(given)
        except UserError as error:
            if "\n" in str(error):
                findings.setdefault("more than one line", (given, str(error)))
        except Exception as error:
            sys.settrace(None)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            findings.setdefault(f"{type(error).__name__} {frame.filename}:{frame.lineno}", (given, traceback.format_exc()))
        finally:
            sys.settrace(None)
        if tried <= len(target.seeds) or not reached <= lines:
            corpus.append(given)
            lines |= reached
    return tried, len(lines), findings


def _tracer(reached: set):
    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    return trace


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tried, lines, findings = fuzz(TARGETS[args.target](args.bundle.absolute(), Path(folder)), args.seconds, args.seed)
    for place, (given, trace) in findings.items():
        print(f"{place}\n  {given!r:.2000}\n{trace[-3000:]}")
    print(f"{args.target}: {tried} inputs, {lines} lines reached, {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
