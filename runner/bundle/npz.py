"""Arrays of a `.npz` file, read so that no header makes the program take more memory than the file may ask for."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..common.errors import UserError

MOST_BYTES = 2**30  # of all arrays of a file: the prior's context, the largest there is, takes 50 MB at the real size
# What NumPy and zipfile raise for a file that is not what it should be
DAMAGED = (OSError, ValueError, TypeError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
KINDS = "fiubU"  # numbers and text, of NumPy's kinds


def read_arrays(path: Path, required: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of a file, by name. UserError if it is damaged, lacks a `required` one, or holds more than MOST_BYTES."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"its arrays take more than {MOST_BYTES} bytes")
            arrays = {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
        for name in required:
            if name not in arrays:
                raise ValueError(f"it has no {name}")
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged; export the bundle again") from None
    return arrays


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are expanded without a limit
        raise ValueError(f"{info.filename} is compressed in an unknown way")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if dtype.kind not in KINDS:
            raise ValueError(f"{info.filename} holds {dtype}")
        data = file.read()
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} has {len(data)} bytes, not those of a {dtype} array of shape {shape}")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if by_columns else "C")
