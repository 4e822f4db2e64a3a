"""Compressed files expand no further than a bundle may ask for, and no header makes the program take memory."""

import bz2
import io
import lzma
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from damage import assert_one_line
from kandinsky_mindir.runner.bundle import checked_files, mindir_archive, ms_layout, npz
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME, Manifest
from kandinsky_mindir.runner.bundle.ms_layout import Layout
from kandinsky_mindir.runner.bundle.npz import read_arrays
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor, read_index, write_index

MEGABYTE = 2**20


@pytest.fixture
def in_little_memory():
    """A function that calls another and sees that Python took less than 16 MB meanwhile."""

    def call(function):
        tracemalloc.start()
        try:
            function()
            assert tracemalloc.get_traced_memory()[1] < 16 * MEGABYTE
        finally:
            tracemalloc.stop()

    return call


def test_a_layout_that_expands_without_end(tmp_path, monkeypatch, in_little_memory):
    path = tmp_path / "bomb.ms.layout"
    path.write_bytes(lzma.compress(b"[]\n" + bytes(64 * MEGABYTE)))
    Layout.read(path)  # what it says is right
    monkeypatch.setattr(ms_layout, "MOST_BYTES", MEGABYTE)
    in_little_memory(lambda: assert_one_line("bomb.ms.layout cannot be read .*more than 1048576 bytes",
                                             lambda: Layout.read(path)))


def test_a_layout_that_wants_a_huge_dictionary(tmp_path):
    path = tmp_path / "greedy.ms.layout"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**29}]
    path.write_bytes(lzma.compress(b"[]\n", filters=filters))
    assert_one_line("greedy.ms.layout cannot be read .*[Mm]emory usage limit", lambda: Layout.read(path))


def test_a_layout_with_a_second_stream(tmp_path):
    path = tmp_path / "two.ms.layout"
    path.write_bytes(lzma.compress(b"[]\n") * 2)
    assert_one_line("two.ms.layout cannot be read .*too long", lambda: Layout.read(path))


def archive(path, content, size=None, kind=zipfile.ZIP_BZIP2):
    """A zip with one member, whose entry says that it has `size` bytes."""
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("graph.mindir", content)
    if size is not None:
        data = bytearray(path.read_bytes())
        entry = data.rindex(b"PK\1\2")
        struct.pack_into("<I", data, entry + 24, size)
        path.write_bytes(data)
    return path


def test_an_archive_is_read(tmp_path):
    assert mindir_archive.read(archive(tmp_path / "mindir.zip", b"content"), "unet/graph.mindir") == b"content"
    assert_one_line("mindir.zip holds no other.mindir",
                    lambda: mindir_archive.read(tmp_path / "mindir.zip", "unet/other.mindir"))


@pytest.mark.parametrize("size", [7, 64 * MEGABYTE - 1, 64 * MEGABYTE + 1])
def test_an_archive_that_does_not_hold_what_it_says(tmp_path, size):
    path = archive(tmp_path / "mindir.zip", bytes(64 * MEGABYTE), size)
    assert_one_line("mindir.zip cannot be read .*does not hold what", lambda: mindir_archive.read(path, "graph.mindir"))


def test_an_archive_that_expands_without_end(tmp_path, in_little_memory):
    """Twenty thousand times its size; Python's own reader would expand it whole."""
    path = archive(tmp_path / "mindir.zip", bytes(64 * MEGABYTE), 100)
    assert path.stat().st_size < 4000
    in_little_memory(lambda: assert_one_line("does not hold what", lambda: mindir_archive.read(path, "graph.mindir")))


@pytest.mark.parametrize("size, kind", [
    (2**31, zipfile.ZIP_BZIP2), (None, zipfile.ZIP_DEFLATED), (None, zipfile.ZIP_STORED),
])  # fmt: skip
def test_an_archive_of_another_kind(tmp_path, size, kind):
    path = archive(tmp_path / "mindir.zip", b"content", size, kind)
    assert_one_line("not compressed with bzip2, or takes more", lambda: mindir_archive.read(path, "graph.mindir"))


def test_an_archive_with_a_wrong_checksum(tmp_path):
    path = archive(tmp_path / "mindir.zip", b"content")
    data = path.read_bytes()
    other = bz2.compress(b"contenu", 9)
    start = data.index(b"BZh")
    path.write_bytes(data[:start] + other + data[start + len(other) :])
    assert_one_line("mindir.zip cannot be read", lambda: mindir_archive.read(path, "graph.mindir"))


ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
          "c": np.array(["x", "yz"]), "d": np.float32(3)}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_as_numpy_reads_them(tmp_path, save):
    save(tmp_path / "x.npz", **ARRAYS)
    found = read_arrays(tmp_path / "x.npz", ["a"])
    assert list(found) == list(ARRAYS)
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype and array.flags.writeable


def member(header, data=b"", kind=zipfile.ZIP_STORED):
    """A .npz of one array with a header of its own."""
    text = repr(header).encode() + b"\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as file:
        file.writestr("a.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data)
    return content.getvalue()


FLOATS = {"descr": "<f4", "fortran_order": False, "shape": (2,)}


@pytest.mark.parametrize("content", [
    b"", b"PK", member(FLOATS), member(FLOATS, bytes(9)), member({**FLOATS, "shape": (2**40,)}),
    member({**FLOATS, "shape": (-2,)}), member({**FLOATS, "descr": "|O"}, bytes(16)),
    member({**FLOATS, "descr": [("x", "<f4")]}, bytes(8)), member({}), member(7),
    member({**FLOATS, "descr": 7}), member({**FLOATS, "shape": (2**62, 2**62)}), member(FLOATS, bytes(8), zipfile.ZIP_LZMA),
    member(FLOATS, bytes(8), zipfile.ZIP_BZIP2), member(FLOATS, bytes(8))[:-30],
])  # fmt: skip
def test_arrays_that_are_none(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    assert_one_line("x.npz cannot be read .* damaged; export the bundle again", lambda: read_arrays(tmp_path / "x.npz"))


def test_too_many_arrays(tmp_path, monkeypatch, in_little_memory):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(64 * MEGABYTE, np.uint8))
    monkeypatch.setattr(npz, "MOST_BYTES", MEGABYTE)
    in_little_memory(lambda: assert_one_line("x.npz cannot be read .*more than 1048576",
                                             lambda: read_arrays(tmp_path / "x.npz")))


def test_a_constant_that_is_not_there(tmp_path):
    np.savez(tmp_path / "constants.npz", clip_mean=np.zeros(3))
    assert_one_line("constants.npz cannot be read .it has no clip_std",
                    lambda: read_arrays(tmp_path / "constants.npz", ["clip_std"]))


def test_a_huge_manifest(tmp_path, monkeypatch):
    (tmp_path / FILE_NAME).write_bytes(b" " * 2000)
    monkeypatch.setattr(checked_files, "LARGEST_MANIFEST", 1000)
    assert_one_line("manifest.json cannot be read .*more than 1000 bytes", lambda: Bundle(tmp_path))


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a":' * 100_000, '{"format": NaN}', '{"format": -Infinity}', '{"format": 1e999}',
    '{"format": ' + "9" * 5000 + "}", '{"format": 4, "format": 4}', '"\\ud800"', "",
])  # fmt: skip
def test_json_that_is_none(text):
    assert_one_line("manifest.json", lambda: Manifest.parse(text))


def test_an_index_comes_back(tmp_path):
    tensors = {'odd "name"\n': StoredTensor("weights.bin", 64, (2, 3)), "b": StoredTensor("weights.bin", 128, ())}
    write_index(tmp_path / "weights.index.json", tensors)
    assert read_index(tmp_path / "weights.index.json") == tensors
    assert tensors["b"].length == 4 and len((tmp_path / "weights.index.json").read_text().splitlines()) == 4


@pytest.mark.parametrize("text", [
    "", "[]", '{"a": {}}', '{"a": {"file": "w", "offset": -1, "shape": []}}',
    '{"a": {"file": "../w", "offset": 0, "shape": []}}',
    '{"a": {"file": "w", "offset": 0, "shape": [1.5]}}',
    '{"a": {"file": "w", "offset": 0, "shape": [2], "dtype": "float64"}}', "[" * 100_000,
])  # fmt: skip
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "weights.index.json").write_text(text)
    assert_one_line("weights.index.json cannot be read", lambda: read_index(tmp_path / "weights.index.json"))
