"""Damage at random places of a bundle: single bytes changed, files cut. Each is refused, by name, before any use of it.

  python tests/programs/corruption.py BUNDLE [--cases 1000] [--commands 30] [--seed 0]

Every case is a copy of the bundle with one damaged file. The bundle is opened, as every command does first; if that does not
refuse it, all models are loaded as `generate`, `interpolate`, `verify` and `check` load them, from the files that `Bundle`
hands out, but for Lite itself: a model that would be loaded from the damaged file counts as missed. `--commands` cases go
through the program as well. Prints a table: file, cases, refused when opened, refused at its first use, missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.inputs.tokens import tokenizer_of
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import read_example

OPENED, FIRST_USE, MISSED = "when opened", "at first use", "missed"
PROGRAM = [sys.executable, "-m", "kandinsky_mindir.runner.cli"]


class Case(NamedTuple):
    """The byte at `place` of the file `name` gets another value, or with `value` None the file ends there."""

    name: str
    place: int
    value: int | None

    def apply(self, data: bytes) -> bytes:
        if self.value is None:
            return data[: self.place]
        return data[: self.place] + bytes([self.value]) + data[self.place + 1 :]

    def __str__(self) -> str:
        return f"{self.name} " + (f"cut at {self.place}" if self.value is None else f"byte {self.place} = {self.value}")


def cases(bundle: Path, count: int, seed: int) -> Iterator[Case]:
    """`count` of them over all files alike, small or large; one in four is a cut."""
    random = np.random.default_rng(seed)
    names = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    for number in range(count):
        name = names[number % len(names)]
        size = (bundle / name).stat().st_size
        place = int(random.integers(size))
        with open(bundle / name, "rb") as file:
            file.seek(place)
            old = file.read(1)[0]
        other = (old + int(random.integers(1, 256))) % 256
        yield Case(name, place, None if random.integers(4) == 0 else other)


class Damaged:
    """A copy of a bundle, made of links, in which one file at a time is damaged."""

    def __init__(self, bundle: Path, folder: Path):
        self.bundle, self.copy = bundle, folder / "copy"
        shutil.copytree(bundle, self.copy, copy_function=os.link)

    def __call__(self, case: Case) -> Path:
        path = self.copy / case.name
        path.unlink()
        path.write_bytes(case.apply((self.bundle / case.name).read_bytes()))
        return self.copy

    def mend(self, case: Case) -> None:
        (self.copy / case.name).unlink()
        os.link(self.bundle / case.name, self.copy / case.name)


class _Stop(Exception):
    """A model would be loaded now."""


class NoEngine:
    """Takes files in Lite's place and loads none. takes_model_files: whether it would take `.ms` files."""

    precision, kernels, reads = "float32", "lite", "lite"

    def __init__(self, takes_model_files: bool):
        self.takes_model_files = takes_model_files

    def load(self, *_, **__):
        raise _Stop


def use(bundle: Bundle) -> None:
    """Use every file of the bundle, up to where Lite would take it."""
    bundle.constants, tokenizer_of(bundle)
    for graph in bundle.manifest.graphs:
        bundle.tensors(graph.part)
        read_example(bundle, graph)
        bundle.mindir(graph.mindir)
        for takes_model_files in (True, False):
            models = Models(bundle, NoEngine(takes_model_files), keep_loaded=False)
            try:
                with models.lease(graph.name, graph.batch, graph.size):
                    raise AssertionError("nothing was loaded")
            except _Stop:
                pass


def refused(folder: Path, name: str) -> str:
    """Where a bundle with the damaged file `name` is refused. AssertionError if the refusal does not name it."""
    where = OPENED
    try:
        bundle = Bundle(folder)
        where = FIRST_USE
        use(bundle)
    except UserError as error:
        assert not isinstance(error, EngineError) and f"{folder / name} " in f"{error} ".replace(":", " "), error
        return where
    return MISSED


def by_command(folder: Path, name: str) -> str:
    """What the program says of it; AssertionError unless it is one line that names it, and status 2."""
    result = subprocess.run([*PROGRAM, "inspect", folder, "--files"], capture_output=True, text=True, timeout=600)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, (result.returncode, result.stderr)
    assert str(folder / name) in result.stderr, result.stderr
    return result.stderr.strip()


def run(bundle: Path, count: int, seed: int = 0, commands: int = 0) -> dict[str, Counter]:
    """Do it; returns for each file how often it was refused where."""
    found = defaultdict(Counter)
    with tempfile.TemporaryDirectory(dir=bundle.parent) as folder:
        damaged = Damaged(bundle, Path(folder))
        use(Bundle(damaged.copy))  # whole, it is not refused
        for number, case in enumerate(cases(bundle, count, seed)):
            copy = damaged(case)
            found[case.name][refused(copy, case.name)] += 1
            if commands and number % -(-count // commands) == 0:
                print(by_command(copy, case.name).replace(str(copy), "BUNDLE"))
            damaged.mend(case)
    return dict(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--commands", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = run(args.bundle, args.cases, args.seed, args.commands)
    total = sum(found.values(), Counter())
    print(f"\n{'file':45} {'cases':>6} " + " ".join(f"{where:>13}" for where in (OPENED, FIRST_USE, MISSED)))
    for name, counts in sorted(found.items()) + [("all", total)]:
        print(f"{name:45} {counts.total():6} " + " ".join(f"{counts[where]:13}" for where in (OPENED, FIRST_USE, MISSED)))
    return int(total[MISSED] > 0)


if __name__ == "__main__":
    sys.exit(main())
