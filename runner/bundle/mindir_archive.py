"""The MindIR files of a part of a bundle, in one zip: they shrink to a tenth, and the usual path reads none of them.

Unzipped where the archive lies they find their weights beside them, for MindSpore or any tool of its.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ..common.errors import UserError

NAME = "mindir.zip"


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
    try:
        with zipfile.ZipFile(archive) as file:
            return file.read(PurePosixPath(name).name)
    except KeyError:
        raise UserError(f"{archive} holds no {PurePosixPath(name).name}: export the bundle again") from None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{archive} cannot be read ({error}): it is damaged; export the bundle again") from None


def _member(name: str) -> zipfile.ZipInfo:
    """The entry of a file, without the time of day."""
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = zipfile.ZIP_BZIP2, 0o644 << 16
    return info
