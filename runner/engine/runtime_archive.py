"""The runtime as one file, for a device of the same kind that has neither compiler nor network.

A tar file of one folder, as it lies in the cache (unpacked there by hand it serves, too): Lite's libraries for the CPU, our
compiled programs, and archive.json, which comes first and says for what machine it is and the sha256 of each file. The names
of the programs hold a digest of their sources: they serve this version of the package and no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..common.errors import UserError, is_of_system
from . import onednn
from .interface import Say
from .wheel import CPU_LIBRARIES, VERSION

LIBRARIES = (*CPU_LIBRARIES, onednn.LIBRARY, onednn.OPENMP)
FORMATS = {".tar.xz": "w:xz", ".tar.gz": "w:gz"}
CONTENTS = "archive.json"
CONTENTS_LIMIT = 1 << 20  # bytes
SIZE_LIMIT = 1 << 30  # bytes of all its files: three times what Lite's libraries take
BLOCK = 1 << 20
USAGE = 2  # the exit status of the bridge if it is started without arguments
AGAIN = "make it again with `kandinsky-mindir runtime archive`"


def check_output(output: Path) -> None:
    """UserError unless an archive can be written there."""
    if not output.name.endswith(tuple(FORMATS)):
        raise UserError(f"{output}: the name of an archive ends in {' or '.join(FORMATS)}")
    if output.is_dir():
        raise UserError(f"{output} is a folder: choose another name")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"The folder {output.parent} is not writable: choose another place")


def write(output: Path, root: Path, programs: Sequence[str], machine: str, say: Say) -> Path:
    """Write the runtime in the folder `root` as `output`, whole or not at all. UserError if that cannot be."""
    libraries = [f"lib/{name}" for name in LIBRARIES if (root / "lib" / name).exists()]
    files = [*libraries, *programs]
    say(f"Compressing {sum((root / file).stat().st_size for file in files) / 1e6:.0f} MB into {output} ...")
    contents = {"lite": VERSION, "machine": machine, "programs": sorted(programs),
                "files": {file: _sha256(root / file) for file in files}}
    mode = next(mode for suffix, mode in FORMATS.items() if output.name.endswith(suffix))
    try:
        with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as partial:
            try:
                with tarfile.open(fileobj=partial, mode=mode) as archive:  # type: ignore[call-overload]
                    text = json.dumps(contents, indent=1).encode()
                    archive.addfile(entry(f"{root.name}/{CONTENTS}", len(text), 0o644), BytesIO(text))
                    for file in files:
                        with open(root / file, "rb") as source:
                            size = os.fstat(source.fileno()).st_size
                            archive.addfile(entry(f"{root.name}/{file}", size, 0o755), source)
                partial.flush()
                os.chmod(partial.name, 0o644)
                os.replace(partial.name, output)
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial.name)
                raise
    except (OSError, tarfile.TarError) as error:
        if not (is_of_system(error) or isinstance(error, tarfile.TarError)):
            raise
        raise UserError(f"{output} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return output


def check(archive: Path, machine: str, programs: Sequence[str]) -> None:
    """UserError unless it holds the runtime for this machine, and these programs."""
    with _opened(archive) as (contents, _):
        if contents["lite"] != VERSION or contents["machine"] != machine:
            raise UserError(f"{archive} holds MindSpore Lite {contents['lite']} for {contents['machine']}; this machine "
                            f"needs {VERSION} for {machine}: {AGAIN} on such a machine")
        if contents["programs"] != sorted(programs):
            raise UserError(f"{archive} was made by another version of kandinsky-mindir (it holds "
                            f"{', '.join(contents['programs'])}; this version needs {', '.join(sorted(programs))}): "
                            f"{AGAIN} of this version")


def unpack(archive: Path, folder: Path, say: Say) -> Path:
    """A new folder in the empty `folder` with all that the archive lists, each file compared with its sha256. UserError.

    The bridge is started once: it may need newer system libraries than this machine has.
    """
    say(f"Unpacking {archive} ...")
    new = folder / "new"
    with _opened(archive) as (contents, members):
        missing: dict[str, str] = dict(contents["files"])
        left = SIZE_LIMIT
        for member, source in members:
            name = PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
            left -= member.size
            if name not in missing or left < 0:
                raise UserError(f"{archive} holds {member.name!r}, which does not belong to the runtime: {AGAIN}")
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open(target, "wb") as copy:
                while block := source.read(BLOCK):
                    digest.update(block)
                    copy.write(block)
            if digest.hexdigest() != missing.pop(name):
                raise UserError(f"{archive} is damaged: the sha256 of {name} is not what {CONTENTS} says: copy it again")
            target.chmod(0o755)
        if missing:
            raise UserError(f"{archive} is cut: it lacks {', '.join(missing)}: copy it again")
        _try(new / next(name for name in contents["programs"] if name.startswith("bridge-")), archive)
    return new


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], Iterator[tuple[tarfile.TarInfo, IO[bytes]]]]]:
    """What archive.json says, and the files that follow it. UserError if it is no such archive, or damaged."""
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        with file, tarfile.open(fileobj=file, mode="r|*") as archive:
            first = archive.next()
            source = archive.extractfile(first) if first is not None and first.isfile() else None
            if first is None or source is None or PurePosixPath(first.name).name != CONTENTS or first.size > CONTENTS_LIMIT:
                raise UserError(f"{path} is no archive of the runtime: {AGAIN}")
            yield _parse(source.read(), path), _files(archive)
    except (tarfile.TarError, EOFError, LZMAError, zlib.error) as error:
        raise UserError(f"{path} is damaged, or no archive of the runtime ({error}): copy it again, or {AGAIN}") from None


def _files(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    while (member := archive.next()) is not None:
        source = archive.extractfile(member) if member.isfile() else None
        if source is None:
            raise tarfile.ReadError(f"{member.name!r} is no file")
        yield member, source


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    """archive.json, with every field as it must be: the names are used as file names."""
    try:
        contents = json.loads(text)
        lite, machine = contents["lite"], contents["machine"]
        programs, files = contents["programs"], contents["files"]
        known = {f"lib/{name}" for name in LIBRARIES} | {name for name in programs if PurePosixPath(name).name == name}
        good = all(isinstance(text, str) for text in (lite, machine, *programs, *files.values()))
        good = good and set(programs) <= set(files) <= known and any(name.startswith("bridge-") for name in programs)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        good = False
    if not good:
        raise UserError(f"{path}: its {CONTENTS} is not what `kandinsky-mindir runtime archive` writes: {AGAIN}")
    return contents


def _try(bridge: Path, archive: Path) -> None:
    result = subprocess.run([bridge], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            errors="replace")
    if result.returncode != USAGE:
        reason = (result.stderr.strip().splitlines() or [f"it ended with status {result.returncode}"])[-1]
        raise UserError(f"The bridge of {archive} does not start on this machine ({reason}): {AGAIN} on a system that is as "
                        "old as this one")


def entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    """No owner and no time: the same files make the same archive."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
