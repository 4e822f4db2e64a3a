"""MindSpore Lite on this machine: fetched once through pip, checked, unpacked into the user's cache, programs built.

No Python that this package supports can `pip install mindspore-lite`, but the wheel's C++ libraries and headers do
not depend on Python: pip downloads the wheel (from wherever pip is configured to), its sha256 is compared with the
one known here, the libraries that are opened at run time are unpacked, and our two programs are compiled against them.
"""

import contextlib
import errno
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from ..common.errors import UserError
from ..common.locks import check_system, lock
from .interface import say_on_stderr

VERSION = "2.0.0"
SOURCES = Path(__file__).parent / "native"
PROGRAMS = {  # source NAME.cc, and the libraries it calls
    "bridge": ("mindspore-extendrt_python",),
    "convert": ("mindspore_converter", "mindspore_core"),
}
WHEEL_VARIABLE = "KANDINSKY_MINDIR_LITE_WHEEL"
CACHE_VARIABLE = "KANDINSKY_MINDIR_CACHE"
BYTES_NEEDED = 600_000_000  # the wheel and what is unpacked from it, together


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

LIBRARIES = (
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
    "libascend_kernel_plugin_python.so",  # for Ascend, this and the next two
    "libascend_pass_plugin.so",
    "libmslite_shared_lib.so",
)


class Runtime(NamedTuple):
    """An installed runtime: its folder, and in it the compiled programs: bridge runs graphs, convert makes `.ms`."""

    root: Path
    bridge: Path
    convert: Path

    @property
    def built(self) -> bool:
        return self.bridge.exists() and self.convert.exists()


def ensure(say=say_on_stderr):
    """The installed Runtime; installs it first where there is none (`say` is then told what goes on). UserError."""
    found = _find()
    return found if found.built else install(say)


def install(say=say_on_stderr, wheel=None):
    """Install the runtime, or as much of it as is missing, and return it.

    `wheel` is the path of an already downloaded wheel (default: the environment's KANDINSKY_MINDIR_LITE_WHEEL, else
    pip fetches it). UserError says in one line what stands in the way.
    """
    found = _find()
    try:
        with _lock(found.root.parent, say):
            _clear(found.root.parent)
            if not found.root.exists():
                _unpack(found.root, wheel or os.environ.get(WHEEL_VARIABLE), say)
            if not found.built:
                _build(found, say)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"No space left in {found.root.parent}: the runtime needs {BYTES_NEEDED // 10**6} MB "
                            f"while it installs; free some, or set {CACHE_VARIABLE} to another folder") from error
        raise UserError(f"Cannot install the runtime in {found.root.parent}: {error.strerror or error}; "
                        f"set {CACHE_VARIABLE} to a folder that you can write to") from error
    return found


def info():
    """What is installed and where, as a dict of plain values."""
    found = _find()
    files = [file for file in found.root.rglob("*") if file.is_file()] if found.root.exists() else []
    return {
        "version": VERSION,
        "machine": platform.machine(),
        "folder": str(found.root),
        "installed": found.root.exists(),
        "built": found.built,
        "bytes": sum(file.stat().st_size for file in files),
    }


def cache_folder():
    """Where downloads of this package go: $KANDINSKY_MINDIR_CACHE, else the XDG cache."""
    own = os.environ.get(CACHE_VARIABLE)
    base = own or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "kandinsky-mindir"


def _find():
    machine = _machine()
    root = cache_folder() / f"lite-{VERSION}-{machine}"
    headers = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.h")))
    digests = {name: hashlib.sha256((SOURCES / f"{name}.cc").read_bytes() + headers).hexdigest() for name in PROGRAMS}
    return Runtime(root, **{name: root / f"{name}-{digest[:12]}" for name, digest in digests.items()})


def _machine():
    check_system()
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in WHEELS:
        raise UserError(f"MindSpore Lite {VERSION} exists for Linux on {' and '.join(WHEELS)}, not for {system} on "
                        f"{machine}")
    if platform.libc_ver()[0] != "glibc":
        raise UserError(f"MindSpore Lite {VERSION} needs glibc, which this Linux (musl?) does not have")
    return machine


@contextlib.contextmanager
def _lock(folder, say):
    """One install at a time: the second waits for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "install.lock", "w") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            say("Another process is installing the runtime; waiting for it ...")
            lock(file)
        yield


def _clear(folder):
    """Remove what killed installs left behind; nobody else uses it while we hold the lock."""
    for leftover in folder.glob("partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _unpack(root, wheel, say):
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="partial-") as scratch:
        scratch = Path(scratch)
        wheel = Path(wheel) if wheel else _download(scratch, say)
        if not wheel.is_file():
            raise UserError(f"{wheel}: no such wheel file")
        _check(wheel)
        say(f"Unpacking MindSpore Lite {VERSION} into {root} ...")
        new = scratch / "new"
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                folder, _, file = name.removeprefix("mindspore_lite/").partition("/")
                if (folder == "lib" and file in LIBRARIES) or folder == "include":
                    target = new / folder / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as source, open(target, "wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
        new.rename(root)


def _download(folder, say):
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{sys.executable} has no pip to fetch MindSpore Lite with: run `python -m ensurepip`, "
                        f"or set {WHEEL_VARIABLE} to the downloaded wheel")
    wheel = WHEELS[_machine()]
    say(f"Fetching MindSpore Lite {VERSION} ({wheel.size}, once) ...")
    watched = sys.stderr is not None and sys.stderr.isatty()
    command = [
        sys.executable, "-m", "pip", "download", f"mindspore-lite=={VERSION}", "--no-deps", "--only-binary=:all:",
        "--python-version", "37", "--implementation", "cp", "--abi", "cp37m", "--platform", wheel.platform,
        "--disable-pip-version-check", "--no-input", "--dest", str(folder), *([] if watched else ["--quiet"]),
    ]  # fmt: skip
    # pip draws its progress on standard output, which is not ours to fill
    result = subprocess.run(command, stdout=sys.stderr.fileno() if watched else subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, errors="replace")
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1] if lines else "")
        raise UserError(f"pip could not fetch MindSpore Lite {VERSION}: {reason.removeprefix('ERROR: ').strip()} "
                        f"(check the network, or set {WHEEL_VARIABLE} to the downloaded wheel)")
    return next(folder.glob("*.whl"))


def _check(wheel):
    expected = WHEELS[_machine()].sha256
    with open(wheel, "rb") as file:
        actual = hashlib.sha256()
        while block := file.read(1 << 20):
            actual.update(block)
    if actual.hexdigest() != expected:
        raise UserError(f"{wheel.name}: sha256 is {actual.hexdigest()}, not {expected}: not the MindSpore Lite "
                        f"{VERSION} wheel for {_machine()}")


def _compiler():
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["g++", "c++", "clang++"]:
        if shutil.which(candidate):
            return candidate
    if named:
        raise UserError(f"CXX is set to {named!r}, which is not a program: point it to a C++ compiler")
    raise UserError("No C++ compiler found: install g++ (or clang++), or set CXX to one")


def _build(found, say):
    compiler = _compiler()
    say(f"Building the bridge to it with {compiler} ...")
    for name, libraries in PROGRAMS.items():
        target = getattr(found, name)
        if not target.exists():
            _compile(compiler, SOURCES / f"{name}.cc", libraries, found.root, target)


def _compile(compiler, source, libraries, root, target):
    folder = root / "lib"
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="partial-") as scratch:
        built = Path(scratch) / "built"
        command = [
            compiler, "-std=c++17", "-O2", "-D_GLIBCXX_USE_CXX11_ABI=0",  # Lite was built with the old string ABI
            "-pthread",
            "-rdynamic",  # its libraries find our functions in place of their own
            f"-I{root}", f"-I{root / 'include'}", str(source), "-o", str(built),
            f"-L{folder}", *(f"-l{library}" for library in libraries), f"-Wl,-rpath-link,{folder}",
            # RPATH, not RUNPATH: it must also serve the libraries' own needs
            "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/lib",
        ]  # fmt: skip
        result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            reason = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
            raise UserError(f"{compiler} could not build {source.name} (status {result.returncode}): {reason.strip()}")
        built.rename(target)
