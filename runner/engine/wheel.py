"""The vendor's wheel of MindSpore Lite: pip fetches it, its sha256 is compared, and what is needed of it is unpacked.

No Python that this package supports can `pip install mindspore-lite`, but the wheel's C++ libraries and headers do not
depend on Python.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from ..bundle.ms_layout import LITE_VERSION
from ..common.errors import UserError
from .interface import Say

VERSION = LITE_VERSION
WHEEL_VARIABLE = "KANDINSKY_MINDIR_LITE_WHEEL"


class Wheel(NamedTuple):
    """How pip finds the wheel of a machine, and what it must be. (The aarch64 one is tagged for any platform.)"""

    platform: str
    size: str
    sha256: str


WHEELS = {
    "x86_64": Wheel(
        "manylinux1_x86_64", "169 MB", "199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec"
    ),
    "aarch64": Wheel(
        "manylinux2014_aarch64", "56 MB", "9006b56a0285833802b4880f34cbce5f94111ef5ca4071d5df5c61e8c2a3a6f7"
    ),
}

CPU_LIBRARIES = (
    "libmindspore-extendrt_python.so",  # the C++ API; it needs the eight that follow
    "libdnnl.so.2",  # only in the x86-64 wheel
    "libmindspore_converter.so",
    "libmslite_converter_plugin.so",
    "libmindspore_core.so",
    "libmindspore_glog.so.0",
    "libopencv_core.so.4.5",
    "libopencv_imgcodecs.so.4.5",
    "libopencv_imgproc.so.4.5",
    "libmsplugin-ge-litert_python.so",  # opened by name at run time, as are all that follow
    "libruntime_convert_plugin_python.so",
)
ASCEND_LIBRARIES = ("libascend_kernel_plugin_python.so", "libascend_pass_plugin.so", "libmslite_shared_lib.so")
LIBRARIES = CPU_LIBRARIES + ASCEND_LIBRARIES


def unpack(wheel: Path | None, machine: str, folder: Path, say: Say) -> Path:
    """A new folder in the empty `folder` with the wheel's libraries, in lib, and its headers, in include.

    wheel: the downloaded file; None: pip fetches it. machine: a key of WHEELS. UserError if there is none, or another.
    """
    wheel = wheel or _download(folder, machine, say)
    if not wheel.is_file():
        raise UserError(f"{wheel}: no such wheel file")
    check_sha256(wheel, WHEELS[machine].sha256, f"MindSpore Lite {VERSION} wheel for {machine}")
    say(f"Unpacking MindSpore Lite {VERSION} ...")
    new = folder / "new"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            kind, _, file = name.removeprefix("mindspore_lite/").partition("/")
            if (kind == "lib" and file in LIBRARIES) or kind == "include":
                target = new / kind / file
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    return new


def _download(folder: Path, machine: str, say: Say) -> Path:
    wheel = WHEELS[machine]
    say(f"Fetching MindSpore Lite {VERSION} ({wheel.size}, once) ...")
    tags = ["--python-version", "37", "--implementation", "cp", "--abi", "cp37m", "--platform", wheel.platform]
    return fetch(f"MindSpore Lite {VERSION}", [f"mindspore-lite=={VERSION}", *tags], WHEEL_VARIABLE, folder)


def fetch(title: str, arguments: list[str], variable: str, folder: Path) -> Path:
    """The wheel that pip downloads into the empty `folder` for these arguments. variable: of the environment, that names a
    wheel instead. UserError if pip cannot."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{sys.executable} has no pip to fetch {title.rpartition(' ')[0]} with: run `python -m ensurepip`, "
                        f"or set {variable} to the downloaded wheel")
    terminal = _terminal()
    command = [
        sys.executable, "-m", "pip", "download", *arguments, "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--no-input", "--dest", str(folder), *(["--quiet"] if terminal is None else []),
    ]  # fmt: skip
    # pip draws its progress on standard output, which is not ours to fill. It needs a folder for temporary files.
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if terminal is None else terminal,
                            stderr=subprocess.PIPE, text=True, errors="replace", env={**os.environ, "TMPDIR": str(folder)})
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1] if lines else "")
        raise UserError(f"pip could not fetch {title}: {reason.removeprefix('ERROR: ').strip()} "
                        f"(check the network, or set {variable} to the downloaded wheel)")
    return next(folder.glob("*.whl"))


def _terminal() -> int | None:
    """The descriptor of standard error if somebody watches it."""
    try:
        return sys.stderr.fileno() if sys.stderr is not None and sys.stderr.isatty() else None
    except (OSError, ValueError):  # it is closed, or has none
        return None


def check_sha256(wheel: Path, expected: str, title: str) -> None:
    """UserError unless it is that file."""
    with open(wheel, "rb") as file:
        actual = hashlib.sha256()
        while block := file.read(1 << 20):
            actual.update(block)
    if actual.hexdigest() != expected:
        raise UserError(f"{wheel.name}: sha256 is {actual.hexdigest()}, not {expected}: not the {title}")
