"""Make an archive for a board: fetch, build, put together, write."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ..bundle.opened import Bundle
from ..common.errors import UserError
from ..engine import onednn, runtime, runtime_archive
from ..engine.compiler import compile_program
from ..engine.interface import Say
from ..engine.wheel import VERSION
from . import archive, toolchain

SOURCES = Path(__file__).parents[1] / "native"
PROGRAM, BRIDGE, LIBRARY, HEADER = "kandinsky", "kandinsky-bridge", "libkandinsky_mindir.so", "kandinsky_mindir.h"


class Made(NamedTuple):
    """Bytes: of the archive; of what it unpacks to; of the bundle in that."""

    packed: int
    unpacked: int
    bundle: int


def make(bundle: Bundle, target: str, output: Path, say: Say, libraries: Path | None = None, wheel: Path | None = None) -> Made:
    """Write the archive `output` for boards of the kind `target`, a key of toolchain.TARGETS. UserError.

    libraries: a folder with what toolchain.PACKAGES unpack to, wheel: a downloaded wheel of Lite, both for the target; None:
    they are fetched, once.
    """
    runtime_archive.check_output(output)
    compiler = toolchain.compiler_for(target)
    toolchain.require_cmake()
    if not (SOURCES / "CMakeLists.txt").is_file():
        raise UserError(f"{SOURCES} has no sources of the program: install kandinsky-mindir again")
    bundle.verify_files()
    small = toolchain.libraries_for(target, libraries, say)
    lite = runtime.ensure_libraries(target, say, wheel)
    if target == onednn.MACHINE:
        runtime.add_onednn(target, say)
    with tempfile.TemporaryDirectory(prefix="kandinsky-mindir-") as temporary:
        scratch = Path(temporary)
        say(f"Building {PROGRAM} for {target} with {' '.join(compiler)} ...")
        built = toolchain.build(SOURCES, scratch, compiler, small, target, version("kandinsky-mindir"))
        own = {PROGRAM: built / PROGRAM, BRIDGE: compile_program("bridge", compiler, lite, scratch), LIBRARY: built / LIBRARY}
        shared = archive.libraries(lite / "lib", compiler)
        shared |= archive.small_libraries(own[LIBRARY], small, toolchain.TARGETS[target].triplet)
        glibc = archive.require_whole([*own.values(), *shared.values()], {LIBRARY, *(Path(name).name for name in shared)})
        readme = archive.README.format(lite=VERSION, target=target, version=version("kandinsky-mindir"), glibc=glibc)
        of_bundle = archive.bundle_files(bundle)
        files = {**own, HEADER: SOURCES / HEADER, **shared, **of_bundle}
        archive.write(output, files, {PROGRAM, BRIDGE, LIBRARY, *shared}, readme, say)
        sizes = [sum(path.stat().st_size for path in each.values()) for each in (files, of_bundle)]
    return Made(output.stat().st_size, *sizes)
