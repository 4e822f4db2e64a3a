"""PNG files that the C++ library writes, their text, and the small parts beside: sums, whole files, errors in one line."""

import hashlib
import os
import resource

import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError, one_line
from kandinsky_mindir.runner.common.whole_file import PREFIX, SUFFIX
from kandinsky_mindir.runner.pictures.png_text import read_text
from kandinsky_mindir.runner.pictures.provenance import KEY, Provenance
from kandinsky_mindir.runner.pictures.saving import save_image
from kandinsky_mindir.runner.request import Request
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (33, 57, 3), np.uint8)
REQUEST = Request(task="text2image", prompt=("Ночь, 猫 🙂\n\"quoted\"",), seed=7, scheduler="ddim", num_inference_steps=5, height=33, width=57)
TEXTS = Provenance(request=REQUEST, bundle="b", bundle_sha256="0" * 64).text()


def write(leaves, path, texts=TEXTS):
    leaves.call("write", path, 57, 33, PIXELS.tobytes(), *(part for pair in texts.items() for part in pair))


def test_pixels_and_texts_come_back(leaves, tmp_path):
    write(leaves, path := tmp_path / "a.png")
    with Image.open(path) as image:
        assert (image.mode, image.format) == ("RGB", "PNG") and image.tobytes() == PIXELS.tobytes()
        assert image.text == TEXTS
    assert read_text(path, KEY) == TEXTS[KEY]
    assert Provenance.read(path).request == REQUEST  # as `generate --like` reads it
    assert leaves.call("text", path, KEY)[0].decode() == TEXTS[KEY]
    assert leaves.call("text", path, "no such") == []
    assert int(leaves.call("read", path)[0]) == 57


def test_texts_of_pillow_are_read(leaves, tmp_path):
    save_image(Image.fromarray(PIXELS), path := tmp_path / "a.png", text=TEXTS)
    assert leaves.call("text", path, "parameters")[0].decode() == TEXTS["parameters"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["itxt", "text"])
def test_all_kinds_of_text(leaves, tmp_path, kind, compressed):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    text = "naïve ünd" + ("猫" if kind == "itxt" else "") * 3
    getattr(info, f"add_{kind}")("other", "x" * 100_000, zip=compressed)
    getattr(info, f"add_{kind}")(KEY, text, zip=compressed)
    Image.fromarray(PIXELS).save(path := tmp_path / "a.png", pnginfo=info)
    assert leaves.call("text", path, KEY)[0].decode() == text == read_text(path, KEY)
    data = path.read_bytes()
    at = data.index(KEY.encode())
    for damaged, reason in ((data[:at + 5], "the file is cut"), (data[:at] + b"x" + data[at + 1:], "a text in it is damaged")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=reason):
            read_text(path, KEY)
        with pytest.raises(UserError, match=f"^{path} cannot be read: {reason}"):
            leaves.call("text", path, KEY)


def test_a_text_that_is_too_long_is_not_read(leaves, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    for compressed in (False, True):
        info = PngInfo()
        info.add_itxt(KEY, "x" * (2**20 + 1), zip=compressed)
        Image.fromarray(PIXELS).save(path := tmp_path / "a.png", pnginfo=info)
        with pytest.raises(UserError, match="cannot be read: .*1048576"):
            leaves.call("text", path, KEY)


def test_no_png_has_no_text(leaves, tmp_path):
    (path := tmp_path / "a.txt").write_text("x")
    assert leaves.call("text", path, KEY) == []
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=f"^{place} cannot be read: "):
            leaves.call("text", place, KEY)


def test_written_whole_or_not_at_all(leaves, tmp_path):
    path = tmp_path / "a.png"
    path.write_text("before")
    (tmp_path / "link.png").symlink_to("a.png")
    (left := tmp_path / f"{PREFIX}0123abcd{SUFFIX}").write_text("of a killed program")
    write(leaves, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink() and Image.open(path).tobytes() == PIXELS.tobytes() and not left.exists()
    for place, reason in ((tmp_path / "none" / "a.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"^{place} cannot be written: {reason}$"):
            write(leaves, place)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "link.png"]


def test_a_file_that_does_not_fit_leaves_nothing(leaves, tmp_path):
    """A limit to the size of files stands for a full disk: write() fails in its middle."""
    before = resource.prlimit(leaves.process.pid, resource.RLIMIT_FSIZE)
    path = tmp_path / "a.png"
    path.write_text("before")
    leaves.call("ignore", "SIGXFSZ")
    resource.prlimit(leaves.process.pid, resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=f"^{path} cannot be written: File too large$"):
            write(leaves, path)
    finally:
        resource.prlimit(leaves.process.pid, resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000, 100_003])
def test_sha256(leaves, size):
    data = np.random.default_rng(size).bytes(size)
    parts = [data[:size // 3], data[size // 3:size // 2], data[size // 2:]]
    assert leaves.call("sha256", *parts)[0].decode() == hashlib.sha256(data).hexdigest() == leaves.call("plain", data)[0].decode()


@pytest.mark.parametrize("text", [
    "plain", "", " two \n\n lines \r\n", "tab\there", "\x1b[31mred", "a\u2028b\x85c", "naïve 猫 🙂", "\u200b\ue000\U000e0001", "\x00\x7f", "\\ '",
    "nb\u00a0sp", "it's", 'both \' and "',
])  # fmt: skip
def test_errors_are_one_line(leaves, text):
    line, quoted = (part.decode() for part in leaves.call("line", text))
    assert line == one_line(text)
    assert quoted == repr(text)


def test_bytes_that_are_no_text(leaves):
    assert leaves.call("line", b"a\xffb\xc3") == [b"a\\xffb\\xc3", b"'a\\xffb\\xc3'"]
