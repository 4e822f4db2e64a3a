"""oneDNN, with which kernels of ours compute products (native/*_kernel.h): a library beside Lite's.

Lite brings an older oneDNN for its own use. This one comes from a wheel of its makers, for x86-64 alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

from ..common.errors import UserError
from .interface import Say
from .wheel import check_sha256, fetch

VERSION = "3.2"
MACHINE = "x86_64"
LIBRARY = "libdnnl.so.3"  # as native/onednn.h opens it, and it is called in the wheel
OPENMP = "libgomp.so.1"  # of GCC, which it is linked with
REQUIREMENT = "onednn-cpu-gomp==2023.2.0"
SHA256 = "2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb"
SIZE = "39 MB"
WHEEL_VARIABLE = "KANDINSKY_MINDIR_ONEDNN_WHEEL"


def unpack(folder: Path, say: Say) -> Path:
    """The library, in the empty `folder`. UserError if it cannot be had."""
    given = os.environ.get(WHEEL_VARIABLE)
    if given:
        wheel = Path(given)
        if not wheel.is_file():
            raise UserError(f"{wheel}: no such wheel file ({WHEEL_VARIABLE})")
    else:
        say(f"Fetching oneDNN {VERSION} ({SIZE}, once) ...")
        arguments = [REQUIREMENT, "--platform", "manylinux1_x86_64", "--python-version", "3"]
        wheel = fetch(f"oneDNN {VERSION}", arguments, WHEEL_VARIABLE, folder)
    check_sha256(wheel, SHA256, f"oneDNN {VERSION} wheel")
    target = folder / LIBRARY
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(f"/{LIBRARY}"))
        with archive.open(name) as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    return target


def place(library: Path, target: Path) -> None:
    """Move the library to `target`, and put beside it what it is linked with, of the compiler that is here, if there is one: a
    machine that gets the folder as an archive may lack that."""
    compiler = shutil.which("gcc") or shutil.which("g++")
    if compiler and platform.machine() == MACHINE:
        said = subprocess.run([compiler, f"-print-file-name={OPENMP}"], capture_output=True, text=True).stdout.strip()
        if Path(said).is_absolute():  # it repeats the name of what it does not know
            copy = library.with_name(OPENMP)
            shutil.copyfile(said, copy)
            copy.rename(target.with_name(OPENMP))
    library.rename(target)


def usable(library: Path) -> bool:
    """Whether it is there, with what it is linked with."""
    if not library.exists():
        return False
    if library.with_name(OPENMP).exists():
        return True
    try:
        ctypes.CDLL(OPENMP)
    except OSError:
        return False
    return True
