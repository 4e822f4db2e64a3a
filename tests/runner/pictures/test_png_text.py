"""Text of PNG files, within limits."""

import contextlib
import io
import os
import struct
import zlib

import pytest
from kandinsky_mindir.runner.pictures.png_text import MOST_TEXT, SIGNATURE, read_text
from PIL import Image, PngImagePlugin

END = (b"IEND", b"")


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks):
    return SIGNATURE + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("method", ["add_itxt", "add_text"])
def test_every_kind_of_text_as_pillow_writes_it(tmp_path, method, compressed):
    """iTXt, and zTXt or tEXt, which other programs make of it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("other", "x")
    getattr(info, method)("key", "a red cät", zip=compressed)
    path = tmp_path / "cat.png"
    Image.new("RGB", (300, 200)).save(path, pnginfo=info)
    assert read_text(path, "key") == "a red cät"
    assert read_text(path, "nothing") is None


def test_text_behind_the_pixels_of_a_picture_larger_than_pillow_opens(tmp_path):
    path = tmp_path / "grid.png"
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(png((b"IHDR", header), (b"IDAT", bytes(1000)), (b"tEXt", b"key\0value"), END))
    assert read_text(path, "key") == "value"


def test_what_is_no_png_has_no_text(tmp_path):
    path = tmp_path / "cat.png"
    for content in (b"", b"\x89PNG", b"GIF89a" + bytes(100)):
        path.write_bytes(content)
        assert read_text(path, "key") is None


BOMB = zlib.compress(bytes(10 * MOST_TEXT))
WHOLE = png((b"iTXt", b"key\0\0\0\0\0value"), END)


@pytest.mark.parametrize("content, words", [
    (WHOLE[:20], "the file is cut"),
    (WHOLE[:30], "the file is cut"),
    (png((b"IHDR", bytes(13))), "the file is cut"),
    (WHOLE.replace(b"value", b"other"), "a text in it is damaged"),
    (png((b"iTXt", b"key\0\1\0\0\0" + BOMB), END), "longer than 1048576 bytes"),
    (png((b"zTXt", b"key\0\0" + BOMB), END), "longer than 1048576 bytes"),
    (png((b"zTXt", b"key\0\0" + zlib.compress(b"value")[:-2]), END), "is cut, or longer"),
    (png((b"zTXt", b"key\0\0value"), END), "a text in it is damaged"),
    (png((b"zTXt", b"key\0\1value"), END), "a text in it is damaged"),
    (png((b"iTXt", b"key\0\2\0\0\0value"), END), "a text in it is damaged"),
    (png((b"iTXt", b"key\0\0\0value"), END), "a text in it is damaged"),
    (png((b"iTXt", b"key\0\0\0\0\0\xff"), END), "can't decode"),
    (SIGNATURE + struct.pack(">I", 2**31 - 1) + b"iTXt", "it has a text of 2147483647 bytes; the limit is 1048576"),
])
def test_damage_and_bombs_are_refused(tmp_path, content, words):
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_text(path, "key")


def test_pipes_and_devices_are_refused(tmp_path):
    """Reading them may never end."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
        with pytest.raises(OSError):
            read_text(path, "key")


def test_bytes_that_change_raise_nothing_else(tmp_path):
    whole = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("key", "value" * 20, zip=True)
    Image.new("RGB", (3, 2)).save(whole, "PNG", pnginfo=info)
    path = tmp_path / "cat.png"
    for position in range(len(whole.getvalue())):
        data = bytearray(whole.getvalue())
        data[position] ^= 0x55
        path.write_bytes(data)
        with contextlib.suppress(OSError, ValueError):
            assert read_text(path, "key") in (None, "value" * 20)
