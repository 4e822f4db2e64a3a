"""Folders that take long to make, kept between runs: bundles of the tests' checkpoints, and compiled graphs.

They lie below a folder that is named by a digest of all they are made from, so that what an older source made is never
used. Test processes that run side by side share them: the first that needs one makes it, the others wait.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[2]
# All that the bytes of a bundle or of a graph follow from; of the runner, what an export does not pass through is left out,
# and what it only checks the finished bundle with.
SOURCES = ("export", "models", "runner", "artifacts/micro", "tests/support/checkpoints.py", "tests/support/references.py")
LEFT_OUT = ("runner/cli.py", "runner/request.py", "runner/tasks.py", "runner/batch", "runner/board", "runner/commands",
            "runner/engine/bridge.py", "runner/engine/chain.py", "runner/engine/framework/engine.py", "runner/engine/vendor.py", "runner/inputs/conditions.py",
            "runner/inputs/items.py", "runner/loading", "runner/native", "runner/pictures", "runner/pipelines", "runner/service", "runner/upkeep")
LIBRARIES = ("diffusers", "mindspore", "numpy", "tokenizers", "torch", "transformers")
GENERATIONS = 3  # digests whose folders stay: that of another branch is soon needed again


def digest() -> str:
    """Of all that the kept folders are made from."""
    found = hashlib.sha256(repr([version(name) for name in LIBRARIES]).encode())
    for path in sorted(path for source in SOURCES for path in files_of(ROOT / source)):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(LEFT_OUT):
            found.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*.*") if file.is_file() and file.suffix != ".pyc"]


class Kept:
    """The folders of today's sources, below `root`."""

    def __init__(self, root: Path):
        self.folder = root / digest()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.touch()
        for old in sorted(root.iterdir(), key=lambda path: path.stat().st_mtime)[:-GENERATIONS]:
            shutil.rmtree(old, ignore_errors=True)

    def get(self, name: str, make: Callable[[Path], object], wait: bool = True) -> Path | None:
        """The folder `name`, which `make` fills the first time. None: another process makes it, and `wait` is False."""
        target, partial = self.folder / name, self.folder / f"{name}.partial"
        try:
            with FileLock(self.folder / f"{name}.lock", timeout=-1 if wait else 0):
                if not target.exists():
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir()
                    make(partial)
                    partial.rename(target)
        except Timeout:
            return None
        return target


def kept_conversions(convert: Callable, folder: Path) -> Callable:
    """BridgeEngine's method `convert`, which takes the `.ms` file of a graph of an export from `folder` if it was made there by
    the same program from the same bytes. Bundles of one checkpoint share most graphs."""
    folder.mkdir(exist_ok=True)

    @wraps(convert)  # __wrapped__ converts anew
    def kept(engine, mindir, ms):
        weights = Path(mindir).with_name("weights.bin")
        if not Path(mindir).parent.name.startswith(".convert-") or not weights.exists():  # not of an export
            return convert(engine, mindir, ms)
        program = Path(engine.runtime.convert).resolve()
        found = hashlib.sha256(repr((program, program.stat().st_size, program.stat().st_mtime_ns)).encode())
        for path in (Path(mindir), weights):
            found.update(hashlib.sha256(path.read_bytes()).digest())
        file = folder / found.hexdigest()
        if file.exists():
            shutil.copyfile(file, ms)
            return None
        convert(engine, mindir, ms)
        partial = folder / f"{file.name}.{os.getpid()}.{threading.get_ident()}"
        shutil.copyfile(ms, partial)
        partial.replace(file)
        return None

    return kept
