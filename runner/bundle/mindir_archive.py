"""The MindIR files of a part of a bundle, in one zip: they shrink to a tenth, and the usual path reads none of them.

Unzipped where the archive lies they find their weights beside them, for MindSpore or any tool of its.
"""

from __future__ import annotations

import bz2
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..common.errors import UserError

NAME = "mindir.zip"
ASCEND, ASCEND_NAME = ".ascend", "ascend.zip"  # what the names of a graph for Ascend end with, and the archive of those
MOST_BYTES = 2**28  # of a MindIR file without weights: the largest of the shipped checkpoint takes 0.6 MB
LOCAL_HEADER = "<26xHH"  # of a member, before its name; only the lengths of name and extra field matter here


@dataclass(frozen=True)
class TargetGraph:
    """A graph of a manifest, known by `name`, `batch` and `size`, compiled for another target: its inputs and outputs stay.

    config: the file that the vendor's converter takes beside the MindIR, in the same archive. float32: names of the layers that
    compute in float32; all others compute in float16.
    """

    name: str
    batch: int
    size: tuple[int, int] | None
    mindir: str
    config: str
    float32: tuple[str, ...]


def archive_of(name: str) -> str:
    """The path inside the bundle of the archive that holds the MindIR `name` (``unet/unet_b1_64x64.mindir``)."""
    return str(PurePosixPath(name).with_name(ASCEND_NAME if PurePosixPath(name).stem.endswith(ASCEND) else NAME))


def pack(folder: Path, name: str = NAME, paths: Sequence[Path] | None = None) -> None:
    """Move files in `folder`, by default the MindIR files, into an archive. Equal files give an equal archive."""
    paths = sorted(folder.glob("*.mindir")) if paths is None else paths
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_BZIP2, compresslevel=9) as archive:
        for path in paths:
            archive.writestr(_member(path.name), path.read_bytes())
    for path in paths:
        path.unlink()


def read(archive: Path, name: str) -> bytes:
    """A file of the archive; UserError if the archive is damaged or lacks it."""
    member = PurePosixPath(name).name
    try:
        with open(archive, "rb") as file:
            with zipfile.ZipFile(file) as directory:
                info = directory.getinfo(member)
            return _content(file, info)
    except KeyError:
        raise UserError(f"{archive} holds no {member}: export the bundle again") from None
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise UserError(f"{archive} cannot be read ({error}): it is damaged; export the bundle again") from None


def _content(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """What a member holds. Python's reader expands bzip2 without a limit, so its bytes are expanded here."""
    if info.compress_type != zipfile.ZIP_BZIP2 or info.file_size > MOST_BYTES:
        raise ValueError(f"{info.filename} is not compressed with bzip2, or takes more than {MOST_BYTES} bytes")
    file.seek(info.header_offset)
    name_length, extra_length = struct.unpack(LOCAL_HEADER, file.read(struct.calcsize(LOCAL_HEADER)))
    file.seek(name_length + extra_length, os.SEEK_CUR)
    decompressor = bz2.BZ2Decompressor()
    content = decompressor.decompress(file.read(info.compress_size), info.file_size + 1)
    if not decompressor.eof or len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise ValueError(f"{info.filename} does not hold what its entry says")
    return content


def _member(name: str) -> zipfile.ZipInfo:
    """The entry of a file, without the time of day."""
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = zipfile.ZIP_BZIP2, 0o644 << 16
    return info
