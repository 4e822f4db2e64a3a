"""The MindIR files of a part of a bundle, in one zip: they shrink to a tenth, and the usual path reads none of them.

Unzipped where the archive lies they find their weights beside them, for MindSpore or any tool of its.
"""

from __future__ import annotations

import bz2
import os
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..common.errors import UserError

NAME = "mindir.zip"
MOST_BYTES = 2**28  # of a MindIR file without weights: the largest of the shipped checkpoint takes 0.6 MB
LOCAL_HEADER = "<26xHH"  # of a member, before its name; only the lengths of name and extra field matter here


def archive_of(name: str) -> str:
    """The path inside the bundle of the archive that holds the MindIR `name` (``unet/unet_b1_64x64.mindir``)."""
    return str(PurePosixPath(name).with_name(NAME))


def pack(folder: Path) -> None:
    """Move the MindIR files in `folder` into its archive. Equal files give an equal archive."""
    paths = sorted(folder.glob("*.mindir"))
    with zipfile.ZipFile(folder / NAME, "w", zipfile.ZIP_BZIP2, compresslevel=9) as archive:
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
