"""A reader that was written from FORMAT.md alone finds in a bundle what the program finds, and the checkpoint's numbers."""

import ast
import json
import shutil
import struct
from pathlib import Path

import format_reader
import numpy as np
import pytest
from format_reader import Reader, Refused
from kandinsky_mindir.runner.bundle import manifest, ms_layout, packed
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME
from kandinsky_mindir.runner.bundle.ms_layout import Layout
from kandinsky_mindir.runner.bundle.opened import CONSTANTS, Bundle
from kandinsky_mindir.runner.bundle.sealed_examples import SealedExample, file_name
from kandinsky_mindir.runner.bundle.stored.wide_file import open_weights
from references import MICRO
from stored import stored_again

SPECIFICATION = Path(manifest.__file__).with_name("FORMAT.md").read_text()
CHECKPOINT = {
    "text_encoder": "prior/text_encoder/model", "image_encoder": "prior/image_encoder/model",
    "prior": "prior/prior/diffusion_pytorch_model", "unet": "decoder/unet/diffusion_pytorch_model",
    "movq": "decoder/movq/diffusion_pytorch_model",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles("micro")


def checkpoint(part):
    """name -> float32 array of a safetensors file, without a library: 8 bytes of length, a JSON header, the data."""
    data = (MICRO / f"{CHECKPOINT[part]}.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    types = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}
    return {
        name: np.frombuffer(data[8 + length :][slice(*entry["data_offsets"])], types[entry["dtype"]])
        .reshape(entry["shape"]).astype(np.float32)
        for name, entry in header.items() if name != "__metadata__"
    }  # fmt: skip


def test_the_reader_needs_nothing_of_the_project():
    tree = ast.parse(Path(format_reader.__file__).read_text())
    names = {(node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) for node in ast.walk(tree)
             if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert names == {"bz2", "hashlib", "json", "lzma", "struct", "zipfile", "pathlib", "numpy"}


@pytest.mark.parametrize("part", CHECKPOINT)
def test_tensors_are_the_checkpoints(bundle, part):
    reader, original = Reader(bundle), checkpoint(part)
    weights = np.frombuffer(reader.weights(part), np.uint8)
    assert list(weights[:64]) == [1] + [0] * 63
    index, end, compared = reader.tensors(part), 64, 0
    for name, place in index.items():
        length = 4 * int(np.prod(place["shape"]))
        alignment = 65_536 if length >= 262_144 else 64
        start = -(-end // alignment) * alignment
        end = start + length
        assert (place["file"], place["dtype"]) == ("stored_weights.bin", "float16")
        if name in original:
            stored = np.frombuffer(weights[start:end], "<f4").reshape(place["shape"])
            expected = original[name].transpose(0, 2, 3, 1) if original[name].ndim == 4 else original[name]
            np.testing.assert_array_equal(stored, expected, err_msg=name)
            compared += 1
        else:
            kernel, _, product = name.rpartition(".")
            assert f"{kernel}.weight" in original and product.startswith(("plain_", "doubled_"))
    assert end == weights.size and compared > 20
    name = next(iter(index))
    assert reader.tensor(part, name).shape == tuple(index[name]["shape"])


def test_the_program_reads_the_same_index(bundle):
    reader, opened = Reader(bundle), Bundle(bundle)
    for part in reader.parts:
        assert {name: vars_of(tensor) for name, tensor in opened.tensors(part).items()} == reader.tensors(part)


def vars_of(tensor):
    found = {"file": tensor.file, "offset": tensor.offset, "shape": list(tensor.shape), "dtype": tensor.dtype}
    return {**found, **({"taps": [list(row) for row in tensor.taps]} if tensor.taps else {})}


@pytest.mark.parametrize("choice", ["float32", "bfloat16", "int8"])
def test_both_widen_the_same(bundle, tmp_path, choice):
    """Version 4, and version 5 with every type."""
    again = stored_again(bundle, tmp_path / "again", choice, ["unet", "movq"])
    reader = Reader(again)
    assert f'"format": {reader.manifest["format"]}' in (again / FILE_NAME).read_text()
    for part in ("unet", "movq"):
        found, before = (open_weights(place / part / "weights.bin")[:] for place in (again, bundle))
        assert reader.weights(part) == found.tobytes()
        same = choice == "float32" or (choice == "int8" and part == "movq")
        assert np.array_equal(before, found) == same, "a float16 checkpoint is the same in float32, and MoVQ is not made narrower"


def test_ms_files_are_the_programs(bundle):
    """What the program leaves for mapping is filled in from its table."""
    reader, opened = Reader(bundle), Bundle(bundle)
    mapped = 0
    for graph in opened.manifest.graphs:
        for path in graph.ms:
            found = reader.ms(path)
            assert found[4:8] == b"MSL2", graph.title
            with Layout.read(bundle / path).assemble(bundle / path) as file:
                expected = bytearray(Path(file.path).read_bytes())
                for line in Path(file.table.path).read_text().splitlines():
                    kind, position, length, *_ = line.split(" ")
                    if kind == "stored":  # of the layout's own part
                        stretch = next(stretch for stretch in Layout.read(bundle / path).stretches if stretch.position == int(position))
                        offset, content = stretch.offset, open_weights((bundle / path).with_name(stretch.source))
                    else:
                        offset, source = line.split(" ", 4)[3:]
                        content = np.fromfile(source, np.uint8)
                    content = content[int(offset) : int(offset) + int(length)].tobytes()
                    expected[int(position) : int(position) + int(length)] = content
                    mapped += 1
            assert found == expected, graph.title
    assert mapped


def test_graphs_examples_and_constants(bundle):
    reader, opened = Reader(bundle), Bundle(bundle)
    for graph, data in zip(opened.manifest.graphs, reader.manifest["graphs"], strict=True):
        assert reader.mindir(data["mindir"]) == opened.mindir(graph.mindir)
        assert reader.mindir(data["lite"]) == opened.mindir(graph.lite)
        inputs, outputs = reader.example(data)
        assert {name: list(array.shape) for name, array in inputs.items()} == {
            tensor["name"]: tensor["shape"] for tensor in data["inputs"]}
        example = SealedExample.read(opened.file(file_name(graph)))
        for sample, (places, values, rms, _), tensor in zip(example.outputs, outputs, graph.outputs, strict=True):
            marked = np.zeros(tensor.shape, np.float32)
            marked.reshape(-1)[places] = values
            assert sample.relative_error(marked) == 0 and rms == np.float32(sample.rms)
    assert sorted(reader.arrays("constants.npz")) == sorted(CONSTANTS)


@pytest.mark.parametrize("edit, message", [
    (lambda text: text.replace(b'"format": 5', b'"format": 3'), "format 3"),
    (lambda text: text.replace(b'"freq_shift": 0', b'"freq_shift": 1'), "the seal is broken"),
    (lambda text: text.replace(b'"freq_shift": 0', b'"freq_shift": NaN'), "NaN is no JSON"),
])  # fmt: skip
def test_what_it_refuses(bundle, tmp_path, edit, message):
    shutil.copytree(bundle, tmp_path / "bundle", symlinks=True)
    path = tmp_path / "bundle" / FILE_NAME
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(edit(content))
    with pytest.raises(Refused, match=message):
        Reader(tmp_path / "bundle")


@pytest.mark.parametrize("words", [
    f"versions {manifest.FORMAT} to {manifest.MERGED_FORMAT}", f"| `format` | integer | {manifest.FORMAT}, or {manifest.STORED_FORMAT}",
    f", or {manifest.MERGED_FORMAT} of a bundle that was merged",
    f"`format` ({packed.FORMAT})",
    f"{ms_layout.UNIT:,} (UNIT", "at most 2^27 bytes" if ms_layout.MOST_BYTES == 2**27 else "?",
    "at most 2^32" if ms_layout.LARGEST == 2**32 else "?",
])  # fmt: skip
def test_numbers_of_the_specification(words):
    assert words in SPECIFICATION


def test_the_specification_names_every_field(bundle):
    for name in [*json.loads((bundle / FILE_NAME).read_text()), *CONSTANTS]:
        assert f"`{name}`" in SPECIFICATION
