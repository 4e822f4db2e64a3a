"""Safetensors in one file or in shards: every bit arrives, and damage is named."""

import json
import os

import numpy as np
import pytest
import torch
from damage import assert_one_line, cut, edit_entry, edit_header, edit_json
from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles
from safetensors.torch import save_file


def test_plain_file_is_preferred_to_a_variant(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "model.fp16.safetensors")
    files = TensorFiles(tmp_path, "model")
    assert files.path.name == "model.safetensors" and files.read("w").tolist() == [1, 1]


def test_bfloat16_and_float16_extremes(tmp_path):
    """Subnormals, the largest numbers and negative zero."""
    for dtype in (torch.bfloat16, torch.float16):
        info = torch.finfo(dtype)
        numbers = [info.max, info.min, info.tiny, info.smallest_normal / 4, -0.0, 1 + info.eps]
        values = torch.tensor(numbers, dtype=dtype)
        save_file({"w": values}, tmp_path / "model.safetensors")
        np.testing.assert_array_equal(
            TensorFiles(tmp_path, "model").read("w").view(np.uint32), values.float().numpy().view(np.uint32))


def test_scalars_and_empty_tensors(tmp_path):
    save_file({"a": torch.tensor(2.5), "b": torch.zeros(0, 3), "c": torch.ones(1)}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path, "model")
    assert files.read("a").shape == () and files.read("a") == 2.5 and files.read("b").shape == (0, 3)


# Damage. Each entry: what happens to the copied folders, and the words that the one-line error must hold.

FILE_DAMAGE = {
    "empty": (lambda p: cut(p, 0), "not a safetensors file"),
    "cut in the length": (lambda p: cut(p, 5), "not a safetensors file"),
    "cut in the header": (lambda p: cut(p, 100), "invalid header length"),
    "cut in the data": (lambda p: cut(p, -8), "file not fully covered"),
    "longer than its tensors": (
        lambda p: p.write_bytes(p.read_bytes() + b"12"), "file not fully covered"),
    "absurd header length": (
        lambda p: p.write_bytes(b"\xff" * 8 + p.read_bytes()[8:]), "header too large"),
    "header not JSON": (lambda p: edit_header(p, lambda h: "{" + " " * 8), "invalid JSON in header"),
    "header an array": (lambda p: edit_header(p, lambda h: "[]"), "invalid type: sequence"),
    "a tensor twice": (
        lambda p: edit_header(p, lambda h: json.dumps(h)[:-1] + f', "a": {json.dumps(h["a"])}}}'),
        "'a' is given twice"),
    "entry not an object": (
        lambda p: edit_header(p, lambda h: {**h, "a": 3}), "invalid type: integer `3`"),
    "unknown type": (lambda p: edit_header(p, edit_entry(dtype="Q4")), "unknown variant `Q4`"),
    "negative size": (lambda p: edit_header(p, edit_entry(shape=[-8])), "invalid value: integer `-8`"),
    "size and bytes differ": (lambda p: edit_header(p, edit_entry(shape=[7])), "invalid shape, data type, or offset for tensor"),
    "one offset": (lambda p: edit_header(p, edit_entry(data_offsets=[0])), "invalid length 1"),
    "offsets reversed": (lambda p: edit_header(p, edit_entry(data_offsets=[32, 0])), "invalid offset for tensor `a`"),
    "overlap": (
        lambda p: edit_header(p, lambda h: {**h, "twin": h["a"]}), "invalid offset for tensor"),
    "outside the file": (
        lambda p: edit_header(
            p, lambda h: {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
        "file not fully covered"),
}


@pytest.mark.parametrize("damage, message", FILE_DAMAGE.values(), ids=FILE_DAMAGE)
def test_damaged_file_is_refused(tmp_path, damage, message):
    save_file({"a": torch.ones(8), "b": torch.zeros(2, 3)}, tmp_path / "model.safetensors")
    damage(tmp_path / "model.safetensors")
    assert_one_line(message, lambda: TensorFiles(tmp_path, "model"))


@pytest.mark.parametrize("tensor, message", [
    (torch.tensor([1, 2]), "'w' is of type I64"),
    (torch.tensor([1], dtype=torch.uint8), "'w' is of type U8"),
    (torch.tensor([1.0]).to(torch.float8_e4m3fn), "'w' is of type F8_E4M3"),
    (torch.tensor([1e300], dtype=torch.float64), "'w' holds NaN or infinite values"),
    (torch.tensor([1.0, float("nan")]), "'w' holds NaN or infinite values"),
    (torch.tensor([float("inf")], dtype=torch.float16), "'w' holds NaN or infinite values"),
    (torch.tensor([float("-inf")], dtype=torch.bfloat16), "'w' holds NaN or infinite values"),
])
def test_unusable_values_are_refused_when_read(tmp_path, tensor, message):
    save_file({"w": tensor}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path, "model")
    assert_one_line(message, lambda: files.read("w"))
    assert_one_line("has no tensor 'other'", lambda: files.read("other"))


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SHARD_DAMAGE = {
    "shard missing": (lambda f: os.remove(f / SHARDS[1]), f"names the shard {SHARDS[1]}, which is missing"),
    "index without a map": (
        lambda f: (f / "model.safetensors.index.json").write_text("{}"), "weight_map must map"),
    "index cut": (lambda f: cut(f / "model.safetensors.index.json", 30), r"index\.json is not valid JSON"),
    "shard lacks a tensor": (
        lambda f: edit_json(f / "model.safetensors.index.json", lambda c: c["weight_map"].update(c=SHARDS[0])),
        f"places tensor 'c' in {SHARDS[0]}, which lacks it"),
    "shard holds one more": (
        lambda f: edit_json(f / "model.safetensors.index.json", lambda c: c["weight_map"].pop("b0")),
        "holds tensor 'b0', which model.safetensors.index.json does not place there"),
    "shard outside the folder": (
        lambda f: edit_json(f / "model.safetensors.index.json", lambda c: c["weight_map"].update(a="../a.safetensors")),
        r"'\.\./a\.safetensors' must be a plain file name"),
    "single file as well": (
        lambda f: save_file({"a": torch.ones(1)}, f / "model.safetensors"), "holds both model.safetensors and"),
}


@pytest.mark.parametrize("damage, message", SHARD_DAMAGE.values(), ids=SHARD_DAMAGE)
def test_damaged_shards_are_refused(tmp_path, damage, message):
    save_file({"a": torch.ones(2)}, tmp_path / SHARDS[0])
    save_file({"b0": torch.ones(3), "b1": torch.ones(1)}, tmp_path / SHARDS[1])
    weight_map = {"a": SHARDS[0], "b0": SHARDS[1], "b1": SHARDS[1]}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert TensorFiles(tmp_path, "model").shapes == {"a": (2,), "b0": (3,), "b1": (1,)}
    damage(tmp_path)
    assert_one_line(message, lambda: TensorFiles(tmp_path, "model"))
