"""The archive for a board: what is in it, and how it is written.

A tar file of one folder, kandinsky-board: the program kandinsky, the library and its header, the program that runs models on
MindSpore Lite, the libraries that they need, in lib, and a bundle. Unpacked anywhere, it needs Linux and its C library.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from ..bundle.manifest import FILE_NAME
from ..bundle.opened import Bundle
from ..common.errors import UserError, is_of_system
from ..common.whole_file import whole_file
from ..engine import onednn
from ..engine.interface import Say
from ..engine.runtime_archive import FORMATS, entry
from ..engine.wheel import CPU_LIBRARIES

FOLDER = "kandinsky-board"
CONVERTING = {"libruntime_convert_plugin_python.so"}  # for MindIR files: a board loads Lite's own format
LITE = (*(name for name in CPU_LIBRARIES if name not in CONVERTING), onednn.LIBRARY)
COMPILERS = ("libstdc++.so.6", "libgcc_s.so.1")  # of the compiler, which a board may lack
C_LIBRARY = re.compile(r"(libc|libm|libpthread|libdl|librt)\.so\.\d|ld-linux.*\.so\.\d")
README = """\
Kandinsky 2.2 on MindSpore Lite {lite} for {target}, by kandinsky-mindir {version}. It needs Linux with glibc {glibc} or later.
Pictures:   ./kandinsky generate bundle "a tiger" --seed 7 --output tiger.png
Mixes:      ./kandinsky interpolate bundle --text "a cat" 0.4 --image tiger.png 0.6 --output mix.png
This board: ./kandinsky verify bundle (says whether it computes what it should); ./kandinsky --help explains the rest.
Programs:   include kandinsky_mindir.h, link libkandinsky_mindir.so; kandinsky-bridge and lib must stay beside that library.
"""


def libraries(lite: Path, compiler: Sequence[str]) -> dict[str, Path]:
    """The shared libraries of the archive, by their names in it. lite: the folder with Lite's. UserError if one is missing."""
    found = {f"lib/{name}": lite / name for name in LITE if (lite / name).exists()}
    for name in (*COMPILERS, *([onednn.OPENMP] if f"lib/{onednn.LIBRARY}" in found else [])):
        said = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        if not Path(said).is_absolute():  # it repeats the name of what it does not know
            raise UserError(f"{compiler[0]} has no {name}: install the whole compiler")
        found[f"lib/{name}"] = Path(said).resolve()
    return found


def small_libraries(library: Path, folder: Path, triplet: str) -> dict[str, Path]:
    """What a shared library needs of those in `folder` (toolchain.libraries_for), by their names in the archive."""
    found: dict[str, Path] = {}
    left = [library]
    while left:
        for name in needed(_readelf(left.pop())):
            path = next((path for where in ("usr/lib", "lib") if (path := folder / where / triplet / name).exists()), None)
            if path and f"lib/{name}" not in found:
                found[f"lib/{name}"] = path.resolve()
                left.append(path)
    return found


def needed(text: str) -> list[str]:
    """The names of the shared libraries that readelf says a file needs, less those of the C library."""
    return [name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text) if not C_LIBRARY.fullmatch(name)]


def require_whole(files: Iterable[Path], there: set[str]) -> str:
    """The version of glibc that the programs and libraries `files` need. UserError if they need a library that is not `there`."""
    version = (0, 0)
    for file in files:
        text = _readelf(file)
        for name in needed(text):
            if name not in there:
                raise UserError(f"{file.name} needs {name}, which no board can be expected to have")
        version = max([version, *((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", text))])
    return f"{version[0]}.{version[1]}"


def bundle_files(bundle: Bundle) -> dict[str, Path]:
    """The files of a bundle, less what was packed for another machine, by their names in the archive."""
    return {f"bundle/{name}": bundle.path / name for name in (FILE_NAME, *bundle.manifest.files)}


def write(output: Path, files: dict[str, Path], programs: set[str], readme: str, say: Say) -> None:
    """Write `files`, by their names, and the README, whole or not at all. programs: those that can be started. UserError."""
    say(f"Compressing {sum(path.stat().st_size for path in files.values()) / 1e6:.0f} MB into {output} ...")
    mode = next(mode for suffix, mode in FORMATS.items() if output.name.endswith(suffix))
    try:
        with whole_file(output) as file, tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
            text = readme.encode()
            archive.addfile(entry(f"{FOLDER}/README", len(text), 0o644), BytesIO(text))
            for name, path in files.items():
                with open(path, "rb") as source:
                    size = path.stat().st_size
                    archive.addfile(entry(f"{FOLDER}/{name}", size, 0o755 if name in programs else 0o644), source)
    except (OSError, tarfile.TarError) as error:
        if not (is_of_system(error) or isinstance(error, tarfile.TarError)):
            raise
        raise UserError(f"{output} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _readelf(file: Path) -> str:
    try:
        result = subprocess.run(["readelf", "-dVW", file], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise UserError("There is no readelf, which looks at programs: apt-get install binutils") from None
    if result.returncode:
        raise UserError(f"{file} is no program or library that readelf can read")
    return result.stdout
