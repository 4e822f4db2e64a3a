"""A few seconds of fuzz.py, and what it has found."""

import json
import lzma
import struct

import fuzz
import pytest
from damage import assert_one_line
from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles
from kandinsky_mindir.export.contents.ms_files import WeightStore
from kandinsky_mindir.runner.bundle.ms_layout import Layout


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_anything_is_taken_or_refused(name, bundles, tmp_path):
    _, lines, findings = fuzz.fuzz(fuzz.TARGETS[name](bundles("narrow"), tmp_path), seconds=0.2, seed=1)
    assert not findings and lines > 10


def test_a_finding_is_one():
    def run(given):
        if given > 3:
            raise KeyError(given)

    _, _, findings = fuzz.fuzz(fuzz.Target([0], run, lambda rng, given: rng.randrange(9)), seconds=0.1)
    assert [place.split()[0] for place in findings] == ["KeyError"]


@pytest.mark.parametrize("entry, words", [
    ({"dtype": [], "shape": [1], "data_offsets": [0, 4]}, "invalid JSON in header"),
    ({"dtype": {}, "shape": [1], "data_offsets": [0, 4]}, "invalid JSON in header"),
    ({"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}, "has 70 axes"),
])
def test_headers_that_were_findings(entry, words, tmp_path):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert_one_line(words, lambda: TensorFiles(tmp_path, "model").read("a"))


def test_a_layout_that_was_a_finding(tmp_path):
    path = tmp_path / "graph.ms.layout"
    path.write_bytes(lzma.compress(b"[" * 100_000 + b"\nhead"))
    assert_one_line("graph.ms.layout cannot be read", lambda: Layout.read(path))


@pytest.mark.parametrize("data", [
    b"\0\0\0\0MSL2",
    b"\xff\xff\xff\x7fMSL2" + bytes(64),
    b"\x08\0\0\0MSL2" + b"\xff" * 64,
])
def test_ms_files_that_were_findings(data, tmp_path):
    (tmp_path / "graph.ms").write_bytes(data)
    split = WeightStore(tmp_path, {}).split
    assert_one_line("graph.ms is not a .ms file of MindSpore Lite 2", lambda: split(tmp_path / "graph.ms"))
