"""Text of a PNG file, read without its pixels: Pillow decodes the whole picture for it, and refuses large grids."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_TEXT = 1 << 20  # bytes of one text, and of its chunk
MOST_CHUNKS = 1 << 20  # Pillow writes one for each 64 KB of pixels: a file of 64 GB


def read_text(path: str | Path, key: str) -> str | None:
    """The text of a keyword, in any of PNG's three kinds of text; None if the file is no PNG or has no such text.

    OSError if the file cannot be read; ValueError if it is damaged, or the text is longer than MOST_TEXT bytes.
    """
    with open(path, "rb", opener=_open_regular) as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return None
        for kind, body in _texts(file):
            keyword, _, rest = body.partition(b"\0")
            if keyword == key.encode():
                return DECODERS[kind](rest)
    return None


def _open_regular(path: str, flags: int) -> int:
    """A file; not a pipe or a device, which may never end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "it is not a file")
    return descriptor


def _texts(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk of text. PNG specification, 5.3: length, kind, body, CRC of kind and body."""
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("the file is cut")
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            return
        if kind not in DECODERS:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        if length > MOST_TEXT:
            raise ValueError(f"it has a text of {length} bytes; the limit is {MOST_TEXT}")
        body, crc = file.read(length), file.read(4)
        if len(crc) < 4:
            raise ValueError("the file is cut")
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(crc, "big"):
            raise ValueError("a text in it is damaged")
        yield kind, body
    raise ValueError("it has too many chunks")


def _decode_international(rest: bytes) -> str:
    """iTXt, PNG specification, 11.3.4.5: flag and method of compression, language, translated keyword, UTF-8."""
    compressed, method, (*_, text) = rest[:1], rest[1:2], rest[2:].split(b"\0", 2)
    if rest[2:].count(b"\0") < 2 or method != b"\0" or compressed not in (b"\0", b"\1"):
        raise ValueError("a text in it is damaged")
    return (_inflate(text) if compressed == b"\1" else text).decode()


def _decode_compressed(rest: bytes) -> str:
    """zTXt, 11.3.4.4: method of compression, Latin-1."""
    if rest[:1] != b"\0":
        raise ValueError("a text in it is damaged")
    return _inflate(rest[1:]).decode("latin-1")


def _decode_plain(rest: bytes) -> str:
    """tEXt, 11.3.4.3: Latin-1."""
    return rest.decode("latin-1")


def _inflate(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(data, MOST_TEXT)
    except zlib.error:
        raise ValueError("a text in it is damaged") from None
    if not inflate.eof:
        raise ValueError(f"it has a text that is cut, or longer than {MOST_TEXT} bytes")
    return text


DECODERS = {b"iTXt": _decode_international, b"zTXt": _decode_compressed, b"tEXt": _decode_plain}
