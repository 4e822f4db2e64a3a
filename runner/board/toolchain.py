"""What builds programs for a board: a C++ compiler, perhaps a cross compiler, CMake, and small libraries."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..common.errors import UserError
from ..common.scratch import cache_folder
from ..engine import runtime
from ..engine.compiler import find_compiler
from ..engine.interface import Say


class Target(NamedTuple):
    """A kind of machine. triplet: in the names of Debian's compilers and folders; debian: in those of its packages."""

    triplet: str
    debian: str


TARGETS = {"aarch64": Target("aarch64-linux-gnu", "arm64"), "x86_64": Target("x86_64-linux-gnu", "amd64")}
# Of Debian: headers, and shared libraries.
PACKAGES = ("nlohmann-json3-dev", "libcli11-dev", "libutf8proc-dev", "libjpeg62-turbo-dev", "libpng-dev", "zlib1g-dev",
            "liblzma-dev", "libutf8proc2", "libjpeg62-turbo", "libpng16-16", "zlib1g", "liblzma5")
# A line that says what went wrong, of CMake, make, a compiler, a linker or apt; not a file's name.
ERROR = re.compile(r"\berror:|^CMake Error|^E: |\berror \d+\b|cannot find -l|undefined reference|Killed", re.IGNORECASE)
DONE = ".packages"  # in the folder that they are unpacked to: which are there


def compiler_for(target: str) -> list[str]:
    """The command of a C++ compiler for a target. UserError if there is none."""
    if target == platform.machine():
        return find_compiler()
    name = f"{TARGETS[target].triplet}-g++"
    if not shutil.which(name):
        raise UserError(f"There is no C++ compiler for {target} ({name}): apt-get install g++-{TARGETS[target].triplet}, or make "
                        f"the archive on a machine that is {target}")
    return [name]


def require_cmake() -> str:
    found = shutil.which("cmake")
    if not found:
        raise UserError("There is no CMake, which builds the program: apt-get install cmake, or pip install cmake")
    return found


def libraries_for(target: str, given: Path | None, say: Say) -> Path:
    """A folder with usr/include and usr/lib of PACKAGES for a target: `given`, else unpacked from Debian's, once. UserError."""
    if given is not None:
        if not (given / "usr" / "include").is_dir():
            raise UserError(f"{given} has no usr/include: unpack {', '.join(PACKAGES)} for {TARGETS[target].debian} there")
        return given
    folder = cache_folder() / f"board-{target}"
    if _is_whole(folder):
        return folder
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if missing:
        raise UserError(f"There is no {missing[0]} to fetch libraries for {target} with: unpack Debian's packages "
                        f"{', '.join(PACKAGES)} for {TARGETS[target].debian} somewhere, and name the folder with --libraries")
    with runtime.alone(folder.parent, say), tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as scratch:
        if _is_whole(folder):  # another process has fetched it meanwhile
            return folder
        say(f"Fetching {', '.join(PACKAGES)} for {TARGETS[target].debian} ...")
        new = Path(scratch) / "new"
        for package in _download(target, Path(scratch)):
            _run(["dpkg-deb", "--extract", package, new], f"{package.name} cannot be unpacked")
        _mend_links(new)
        (new / DONE).write_text("\n".join(PACKAGES))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    return (folder / DONE).is_file() and (folder / DONE).read_text().split() == list(PACKAGES)


def build(source: Path, scratch: Path, compiler: list[str], libraries: Path, target: str, version: str) -> Path:
    """Build the CMake project in the folder `source`, in the folder `scratch`; where what was built lies. UserError."""
    built, headers = scratch / "build", libraries / "usr" / "include" / TARGETS[target].triplet
    options = {
        "CMAKE_CXX_FLAGS": shlex.join(["-isystem", str(headers)]),  # those that differ from machine to machine
        "CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": target, "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_FIND_ROOT_PATH": libraries, "CMAKE_FIND_ROOT_PATH_MODE_LIBRARY": "ONLY",
        "CMAKE_FIND_ROOT_PATH_MODE_INCLUDE": "ONLY", "CMAKE_LIBRARY_ARCHITECTURE": TARGETS[target].triplet,
        "CMAKE_EXE_LINKER_FLAGS": "-s", "CMAKE_SHARED_LINKER_FLAGS": "-s", "KANDINSKY_VERSION": version,
    }  # fmt: skip
    cmake, command = require_cmake(), shlex.join(compiler)
    environment = {**os.environ, "CXX": command, "TMPDIR": str(scratch)}
    if target != platform.machine():
        environment["CC"] = f"{TARGETS[target].triplet}-gcc"  # CMake would take this machine's
    _run([cmake, "-S", source, "-B", built, *(f"-D{name}={value}" for name, value in options.items())],
         f"CMake cannot set up the program for {target} with {command}", environment)
    jobs = str(len(os.sched_getaffinity(0)))  # without a number, make starts them all
    _run([cmake, "--build", built, "--parallel", jobs], f"{command} could not build the program", environment)
    return built


def _mend_links(root: Path) -> None:
    """Let links with absolute paths lead to places within `root`."""
    for path in root.rglob("*.so*"):
        if path.is_symlink() and (target := os.readlink(path)).startswith("/"):
            path.unlink()
            path.symlink_to(os.path.relpath(root / target.lstrip("/"), path.parent))


def _download(target: str, folder: Path) -> list[Path]:
    """The packages' files, fetched by apt with its sources as they are, but for another kind of machine, and lists of its own."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    debian = TARGETS[target].debian
    apt = ["apt-get", "-q", "-o", f"APT::Architecture={debian}", "-o", f"APT::Architectures={debian}", "-o",
           f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}", "-o",
           f"Dir::State::Status={folder / 'status'}", "-o", "APT::Sandbox::User=root"]  # fmt: skip
    _run([*apt, "update"], "apt-get cannot fetch its lists of packages")
    files = folder / "packages"
    files.mkdir()
    _run([*apt, "download", *PACKAGES], f"apt-get cannot fetch packages for {debian}", cwd=files)
    return sorted(files.glob("*.deb"))


def _run(command: Sequence[str | Path], failure: str, environment: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """UserError that begins with `failure` if the command fails. What it has started ends with it, whatever exception comes.

    The command begins when it is told to, which is once its group is known here: an exception that comes earlier
    closes the pipe, and the shell ends without it.
    """
    begin = ["sh", "-c", 'read -r go && exec "$@"', "sh", *map(str, command)]
    with subprocess.Popen(begin, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", env=environment, cwd=cwd, start_new_session=True) as process:
        try:
            said, _ = process.communicate("go\n")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # make's compilers would go on
            raise
    if process.returncode:
        lines = [line for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if ERROR.search(line)]
        raise UserError(f"{failure}: {next(iter(errors or lines[-1:]), f'status {process.returncode}').strip()}")
