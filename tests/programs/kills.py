"""SIGKILL at random moments of what writes files: nothing half is left in place, and the next run finishes and tidies up.

  python tests/programs/kills.py BUNDLE PRIOR DECODER [--install 120] [--generate 60] [--export 20] [--seed 0]

A small bundle and its checkpoint serve best (`save("narrow", FOLDER)` of checkpoints.py writes a checkpoint). The moments
are spread evenly over the whole of each operation, whose length is taken from an undisturbed run. After every kill:

- the processes that it had started end by themselves, and nothing new lies in /dev/shm;
- install: a runtime that counts as installed has every file whole;
- generate: the picture is not there, or is the right one to the last byte;
- export --overwrite: the bundle is there, the old one or the new one, and all of its files are right.

What a kill leaves beside them is left for the next run; after the last one an undisturbed run leaves nothing but its output.
Prints a table: operation, kills, how many came too late, outputs that were there afterwards, leftovers.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.engine import runtime
from kandinsky_mindir.runner.engine.compiler import PROGRAMS
from kandinsky_mindir.runner.engine.wheel import LIBRARIES

PROGRAM = [sys.executable, "-m", "kandinsky_mindir.runner.cli"]
PATIENCE = 120  # seconds for what should happen at once, on a machine that may be busy
LIBRARY_BYTES = 1 << 20
SHARED_MEMORY = Path("/dev/shm")

# `runtime install` of a small wheel that is taken for Lite's, with a compiler that writes "built".
INSTALL = """
import sys
from kandinsky_mindir.runner.engine import wheel
wheel.WHEELS.update({{name: row._replace(sha256={sha256!r}) for name, row in wheel.WHEELS.items()}})
from kandinsky_mindir.runner import cli
sys.exit(cli.main(["runtime", "install", "--wheel", {wheel!r}]))
"""
COMPILER = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
printf bu > "$2"; sleep 0.1; printf ilt >> "$2"
"""


class Operation:
    """A command that writes into the folder `work`, and what must hold of that folder after a kill.

    environment: what the command gets besides this process's own; its temporary folder is `temporary`.
    """

    def __init__(self, folder: Path, command: list, **environment):
        self.work, self.temporary = folder / "work", folder / "temporary"
        for path in (self.work, self.temporary):
            path.mkdir(parents=True)
        self.command = list(map(str, command))
        self.environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", **environment}

    def prepare(self) -> None:
        """Before each run."""

    def check(self) -> bool:
        """AssertionError if something half is in place; whether the output is there."""
        raise NotImplementedError

    def start(self) -> subprocess.Popen:
        self.prepare()
        return subprocess.Popen(self.command, cwd=self.work, env=self.environment, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, start_new_session=True)

    def finish(self) -> float:
        """Run undisturbed; returns the seconds."""
        started = time.monotonic()
        process = self.start()
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        assert self.check(), "it ended well, and there is no output"
        return time.monotonic() - started

    def leftovers(self) -> list[str]:
        """What lies beside the output."""
        return sorted(path.name for folder in (self.work, self.temporary) for path in folder.iterdir() if path != self.output)

    def kill_after(self, seconds: float) -> bool:
        """Start it, kill it at that moment, check what is there; whether it was still running."""
        before = set(SHARED_MEMORY.iterdir())
        process = self.start()
        with process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
            deadline = time.monotonic() + PATIENCE
            while running(process.pid):
                assert time.monotonic() < deadline, "processes that it started go on without it"
                time.sleep(0.02)
        left = set(SHARED_MEMORY.iterdir()) - before
        assert not left, left
        return process.returncode == -signal.SIGKILL


def running(group: int) -> bool:
    """Whether there are processes of that group, other than dead ones that nobody has asked about yet."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


class Install(Operation):
    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        wheel, compiler = folder / "lite.whl", folder / "compiler"
        self.library = np.random.default_rng(0).bytes(LIBRARY_BYTES)
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in LIBRARIES:
                archive.writestr(f"mindspore_lite/lib/{name}", self.library)
            archive.writestr("mindspore_lite/include/api/model.h", "// model")
        compiler.write_text(COMPILER)
        compiler.chmod(0o755)
        code = INSTALL.format(wheel=str(wheel), sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
        super().__init__(folder, [sys.executable, "-c", code], CXX=str(compiler),
                         **{runtime.CACHE_VARIABLE: str(folder / "work")})
        self.output = self.work / "kandinsky-mindir"

    def prepare(self) -> None:
        if self.check():  # else what the last one left
            shutil.rmtree(self._root())

    def check(self) -> bool:
        root = self._root()
        if root is None:
            return False
        assert sorted(path.name for path in (root / "lib").iterdir()) == sorted(LIBRARIES)
        assert all(path.read_bytes() == self.library for path in (root / "lib").iterdir())
        programs = [path for path in root.iterdir() if path.is_file()]
        assert all(path.read_text() == "built" for path in programs), "half a program"
        return len(programs) == len(PROGRAMS)

    def leftovers(self) -> list[str]:
        kept = {"install.lock", getattr(self._root(), "name", None)}
        inside = [path.name for path in self.output.iterdir() if path.name not in kept] if self.output.exists() else []
        return super().leftovers() + inside

    def _root(self) -> Path | None:
        return next(self.output.glob(f"lite-{runtime.VERSION}-*"), None)


class Generate(Operation):
    def __init__(self, folder: Path, bundle: Path):
        super().__init__(folder, [*PROGRAM, "generate", bundle.absolute(), "a red circle", "--seed", 1, "--steps", 4,
                                  "--prior-steps", 4, "--threads", 1, "--quiet", "--output", "picture.png"])
        self.output, self.right = self.work / "picture.png", None

    def prepare(self) -> None:
        self.output.unlink(missing_ok=True)

    def check(self) -> bool:
        if self.output.exists():
            self.right = self.right or self.output.read_bytes()  # of the first, undisturbed run
            assert self.output.read_bytes() == self.right, "another picture, or half of it"
        return self.output.exists()


class Export(Operation):
    def __init__(self, folder: Path, bundle: Path, prior: Path, decoder: Path):
        sizes = [argument for height, width in Bundle(bundle).manifest.sizes for argument in ("--size", f"{height}x{width}")]
        super().__init__(folder, [*PROGRAM, "export", "--prior", prior.absolute(), "--decoder", decoder.absolute(),
                                  *sizes, "--output", "bundle", "--overwrite"])
        self.output = self.work / "bundle"
        shutil.copytree(bundle, self.output)

    def check(self) -> bool:
        Bundle(self.output).verify_files()
        return True


TITLES = ("operation", "seconds", "kills", "too late", "output there", "most leftovers", "in the end")


def run(operation: Operation, kills: int, random: np.random.Generator) -> tuple:
    """Kill it so many times, then let it finish; returns the cells of its row but for the first."""
    length = operation.finish()
    moments = length * (np.arange(kills) + random.random(kills)) / max(kills, 1)  # one in each of as many equal stretches
    late = there = most = 0
    for moment in random.permutation(moments):
        late += not operation.kill_after(moment)
        there += operation.check()
        most = max(most, len(operation.leftovers()))
    operation.finish()
    assert operation.leftovers() == [], operation.leftovers()
    return f"{length:.1f}", kills - late, late, there, most, len(operation.leftovers())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "prior", "decoder"):
        parser.add_argument(name, type=Path)
    for name, kills in (("install", 120), ("generate", 60), ("export", 20)):
        parser.add_argument(f"--{name}", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        operations = {
            "install": lambda: Install(folder / "install"),
            "generate": lambda: Generate(folder / "generate", args.bundle),
            "export": lambda: Export(folder / "export", args.bundle, args.prior, args.decoder),
        }
        print(" ".join(f"{title:>14}" for title in TITLES))
        for name, make in operations.items():
            if kills := getattr(args, name):
                print(" ".join(f"{cell:>14}" for cell in (name, *run(make(), kills, random))), flush=True)


if __name__ == "__main__":
    main()
