"""MindSpore Lite on this machine: its libraries and our two programs over them, in the user's cache.

They come from the vendor's wheel and a C++ compiler, or from an archive that was made on a machine of the same kind. They
are put in place whole: who finds the programs can use them, and needs to write nothing.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..common.errors import UserError, is_of_system
from ..common.locks import check_system, lock, unlock
from ..common.scratch import CACHE_VARIABLE, cache_folder
from . import onednn, runtime_archive
from .compiler import PROGRAMS, compile_program, file_names
from .compiler import find_compiler as _compiler
from .interface import Say, say_on_stderr
from .precision import lacking, lacking_own_float32
from .wheel import VERSION, WHEEL_VARIABLE, WHEELS, unpack

BYTES_NEEDED = 600_000_000  # the wheel and what is unpacked from it, together


class Runtime(NamedTuple):
    """An installed runtime: its folder, and in it the compiled programs: bridge runs graphs, convert makes `.ms`."""

    root: Path
    bridge: Path
    convert: Path

    @property
    def programs(self) -> tuple[Path, Path]:
        return self.bridge, self.convert

    @property
    def built(self) -> bool:
        return all(program.exists() for program in self.programs)

    @property
    def compilable(self) -> bool:
        """Whether what the programs are compiled with is there. An archive does not bring it."""
        return (self.root / "include").exists()


def ensure(say: Say = say_on_stderr) -> Runtime:
    """The installed Runtime; installs it first where there is none (`say` is then told what goes on). UserError."""
    return install(say)


def install(say: Say = say_on_stderr, wheel: str | Path | None = None, archive: str | Path | None = None) -> Runtime:
    """Install the runtime, or as much of it as is missing, and return it. Nothing is written if nothing is missing.

    wheel: the path of an already downloaded wheel (default: the environment's KANDINSKY_MINDIR_LITE_WHEEL, else pip
    fetches it). archive: a file that `write_archive` wrote, instead of a wheel and a compiler. UserError says in one line
    what stands in the way.
    """
    found = _find()
    with _installing(found.root):
        if archive is not None:
            runtime_archive.check(Path(archive), _machine(), [program.name for program in found.programs])
        if found.built:
            return found
        cache = found.root.parent
        with alone(cache, say), tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as scratch:
            if archive is not None and not found.built:  # which another process may have done meanwhile
                _place(runtime_archive.unpack(Path(archive), Path(scratch), say), found)
            if found.built:
                return found
            compiler = _compiler()  # a download would be for nothing without one
            if not found.compilable:
                brought = wheel or os.environ.get(WHEEL_VARIABLE)
                _place(unpack(Path(brought) if brought else None, _machine(), Path(scratch), say), found)
            compiled = _compiled(found, compiler, Path(scratch), say)
            given = wheel is not None or WHEEL_VARIABLE in os.environ  # who brings Lite as a file may have no network
            wanted = not (lacking_own_float32() or _onednn().exists())
            if wanted and (not given or onednn.WHEEL_VARIABLE in os.environ):
                _try_onednn(_onednn(), Path(scratch), say)
            for target, program in compiled.items():  # the last: who finds them takes what is there
                program.rename(target)
    return found


def add_onednn(machine: str | None = None, say: Say = say_on_stderr) -> None:
    """Install oneDNN beside Lite's libraries for `machine`, "x86_64"; None: for this one, if float32 is faster with it here.

    Where it cannot be had, Lite's kernels serve, and `say` is told so.
    """
    cache, target = _find().root.parent, _onednn(machine)
    if target.exists() or (machine is None and lacking_own_float32()):
        return
    with _installing(target.parents[1]), alone(cache, say), tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as scratch:
        if not target.exists():  # which another process may have put there meanwhile
            _try_onednn(target, Path(scratch), say)


def kernels(precision: str) -> str:
    """Whose kernels compute `.ms` models in a precision here: "own" or "lite"."""
    own = precision == "bfloat16" or (precision == "float32" and not lacking_own_float32() and onednn.usable(_onednn()))
    return "own" if own else "lite"


def _try_onednn(target: Path, scratch: Path, say: Say) -> None:
    folder = scratch / "onednn"
    folder.mkdir()
    try:
        onednn.place(onednn.unpack(folder, say), target)
    except UserError as error:
        say(f"float32 is computed by MindSpore Lite's own kernels, which are slower: {error}")


def ensure_libraries(machine: str, say: Say = say_on_stderr, wheel: Path | None = None) -> Path:
    """A folder with Lite's libraries, in lib, and headers, in include, for `machine`, a key of WHEELS that need not be this
    one. wheel: as in `install`. They are fetched where they are not there. UserError."""
    found = _find(machine)
    with _installing(found.root):
        if not found.compilable:
            with alone(found.root.parent, say), tempfile.TemporaryDirectory(dir=found.root.parent, prefix="partial-") as scratch:
                if not found.compilable:  # which another process may have done meanwhile
                    given = wheel or (os.environ.get(WHEEL_VARIABLE) if machine == platform.machine() else None)
                    _place(unpack(Path(given) if given else None, machine, Path(scratch), say), found)
    return found.root


def ensure_onednn(say: Say = say_on_stderr) -> None:
    """Install oneDNN beside Lite's libraries, where it is not there. UserError."""
    found, target = _find(), _onednn()
    if target.exists():
        return
    try:
        with alone(found.root.parent, say), tempfile.TemporaryDirectory(dir=found.root.parent, prefix="partial-") as scratch:
            if not target.exists():  # which another process may have done meanwhile
                onednn.place(onednn.unpack(Path(scratch), say), target)
    except OSError as error:
        if not is_of_system(error):
            raise
        raise UserError(f"Cannot install oneDNN in {target.parent}: {error.strerror or error}; free some space there, set "
                        f"{CACHE_VARIABLE} to a folder that you can write to, or choose float32 (--precision)") from error


def write_archive(output: Path, say: Say = say_on_stderr) -> Path:
    """Write the runtime of this machine as an archive for machines of its kind without compiler and network; its path.

    It is installed first where it is not. The name says how the archive is compressed (runtime_archive.FORMATS). UserError.
    """
    runtime_archive.check_output(output)
    found = ensure(say)
    return runtime_archive.write(output, found.root, [program.name for program in found.programs], _machine(), say)


def info() -> dict[str, Any]:
    """What is installed and where, as a dict of plain values."""
    found = _find()
    files = [file for file in found.root.rglob("*") if file.is_file()] if found.root.exists() else []
    return {
        "version": VERSION,
        "machine": platform.machine(),
        "folder": str(found.root),
        "installed": found.root.exists(),
        "built": found.built,
        "float32": _float32(),
        "bfloat16": _bfloat16(),
        "float16": _float16(),
        "bytes": sum(file.stat().st_size for file in files),
    }


def _float32() -> str:
    """What computes in float32 here."""
    if kernels("float32") == "own":
        return f"oneDNN {onednn.VERSION} and MindSpore Lite's own kernels"
    reason = lacking_own_float32() or f"`runtime install` adds oneDNN {onednn.VERSION}, which is faster"
    return f"MindSpore Lite's own kernels: {reason}"


def _bfloat16() -> str:
    """What computes products and convolutions in bfloat16 here, or why nothing does."""
    if reason := lacking("bfloat16"):
        return f"no: {reason}"
    return f"oneDNN {onednn.VERSION}, {'installed' if _onednn().exists() else 'fetched when it is first asked for'}"


def _float16() -> str:
    """What computes in float16 here, or why nothing does."""
    reason = lacking("float16")
    return f"no: {reason}" if reason else "MindSpore Lite's own kernels"


def _onednn(machine: str | None = None) -> Path:
    return _find(machine).root / "lib" / onednn.LIBRARY


def _find(machine: str | None = None) -> Runtime:
    root = cache_folder() / f"lite-{VERSION}-{machine or _machine()}"
    return Runtime(root, **{program: root / name for program, name in file_names().items()})


def _machine() -> str:
    check_system()
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in WHEELS:
        raise UserError(f"MindSpore Lite {VERSION} exists for Linux on {' and '.join(WHEELS)}, not for {system} on "
                        f"{machine}")
    if platform.libc_ver()[0] != "glibc":
        raise UserError(f"MindSpore Lite {VERSION} needs glibc, which this Linux (musl?) does not have")
    return machine


@contextmanager
def _installing(root: Path) -> Iterator[None]:
    """What the system refuses while something is put into `root` becomes a UserError."""
    try:
        yield
    except OSError as error:
        if not is_of_system(error):
            raise
        if error.errno == errno.ENOSPC:
            raise UserError(f"No space left in {root.parent}: the runtime needs {BYTES_NEEDED // 10**6} MB "
                            f"while it installs; free some, or set {CACHE_VARIABLE} to another folder") from error
        raise UserError(f"Cannot install the runtime in {root.parent}: {error.strerror or error}; "
                        f"set {CACHE_VARIABLE} to a folder that you can write to") from error


@contextmanager
def alone(folder: Path, say: Say) -> Iterator[None]:
    """One install into a folder at a time: the second waits for the first. What killed installs left behind goes: all that is
    called partial-*."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "install.lock", "w") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            say("Another process is installing the runtime; waiting for it ...")
            lock(file)
        try:
            for leftover in folder.glob("partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
        finally:
            unlock(file)  # a process that was forked meanwhile has the file open, too


def _place(new: Path, found: Runtime) -> None:
    """Move what was unpacked to its place: whole folders at once; the programs last, since they say that it is whole."""
    if not found.root.exists():
        new.rename(found.root)
        return
    (found.root / "lib").mkdir(exist_ok=True)
    for library in (new / "lib").iterdir():
        library.replace(found.root / "lib" / library.name)
    (new / "lib").rmdir()
    for entry in new.iterdir():
        entry.replace(found.root / entry.name)


def _compiled(found: Runtime, compiler: list[str], scratch: Path, say: Say) -> dict[Path, Path]:
    """The programs that are missing, compiled, by where they go."""
    say(f"Building the bridge to it with {' '.join(compiler)} ...")
    compiled: dict[Path, Path] = {}
    for name in PROGRAMS:
        target: Path = getattr(found, name)
        if not target.exists():
            compiled[target] = compile_program(name, compiler, found.root, scratch).rename(scratch / target.name)
    return compiled
