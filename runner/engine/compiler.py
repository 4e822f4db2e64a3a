"""Our two small C++ programs over Lite's libraries: what they are made of, and how they are compiled."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from ..common.errors import UserError

SOURCES = Path(__file__).parent / "native"
PROGRAMS = {  # source NAME.cc, and the libraries it calls
    "bridge": ("mindspore-extendrt_python", "msplugin-ge-litert_python", "mindspore_core"),
    "convert": ("mindspore_converter", "mindspore_core"),
}
CANDIDATES = ("g++", "c++", "clang++")


def file_names() -> dict[str, str]:
    """What the compiled programs are called: a digest of its sources is in the name of each."""
    headers = b"".join(path.read_bytes() for path in sorted(SOURCES.rglob("*.h")))
    digests = {name: hashlib.sha256((SOURCES / f"{name}.cc").read_bytes() + headers).hexdigest() for name in PROGRAMS}
    return {name: f"{name}-{digest[:12]}" for name, digest in digests.items()}


def find_compiler() -> list[str]:
    """The command of a C++ compiler, with its arguments: $CXX, as build tools know it ("ccache g++"), else what is there."""
    named = os.environ.get("CXX", "").strip()
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise UserError(f"CXX is set to {named!r}, which is no command ({error}): point it to a C++ compiler") from None
    for candidate in [command] if command else [[name] for name in CANDIDATES]:
        if shutil.which(candidate[0]):
            return candidate
    if command:
        raise UserError(f"CXX is set to {named!r}, and {command[0]!r} is not a program: point it to a C++ compiler")
    raise UserError("No C++ compiler found: install g++ (or clang++), or set CXX to one; or make an archive with "
                    "`kandinsky-mindir runtime archive` on a machine of the same kind that has one, and install that")


def compile_program(name: str, compiler: list[str], root: Path, scratch: Path) -> Path:
    """The program `name`, compiled in the empty folder `scratch`, to be moved into `root`, where Lite's libraries are."""
    built, libraries = scratch / "built", root / "lib"
    command = [
        *compiler, "-std=c++17", "-O2", "-pthread", "-D_GLIBCXX_USE_CXX11_ABI=0",  # Lite was built with the old string ABI
        "-rdynamic",  # its libraries find our functions in place of their own
        f"-I{root}", f"-I{root / 'include'}", f"-I{SOURCES}", str(SOURCES / f"{name}.cc"), "-o", str(built),
        f"-L{libraries}", *(f"-l{library}" for library in PROGRAMS[name]), f"-Wl,-rpath-link,{libraries}",
        # RPATH, not RUNPATH: it must also serve the libraries' own needs
        "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/lib",
    ]  # fmt: skip
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            errors="replace", env={**os.environ, "TMPDIR": str(scratch)})
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
        raise UserError(f"{shlex.join(compiler)} could not build {name}.cc (status {result.returncode}): {reason.strip()}")
    return built
