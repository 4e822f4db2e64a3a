"""Pictures as files, right and bad ones, and what reading them must give."""

import io
import struct
import zlib

import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.pictures.images import load_image
from PIL import Image


def picture(width=40, height=30, mode="RGB"):
    y, x = np.mgrid[:height, :width]
    channels = np.stack([x * 6, y * 8, (x + y) * 3, 255 - x * 5], axis=-1).astype(np.uint8)
    if mode == "RGBA":
        return Image.fromarray(channels)
    return Image.fromarray(channels[:, :, :3]).convert(mode)


def encoded(format="PNG", image=None, **options):
    file = io.BytesIO()
    (image or picture()).save(file, format, **options)
    return file.getvalue()


def assert_same(ours, theirs):
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    assert ours.tobytes() == theirs.tobytes()


def assert_refused(said, source, **limits):
    with pytest.raises(UserError) as caught:
        load_image(source, **limits)
    message = str(caught.value)
    assert said in message and "\n" not in message and len(message) < 500
    return message


def bomb(width, height):
    """A PNG whose header promises width x height pixels, all in some hundred bytes."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
