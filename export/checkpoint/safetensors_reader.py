"""Weights of one checkpoint component: safetensors, in one file or in shards, read one tensor at a time.

The format (https://github.com/huggingface/safetensors#format) is an 8-byte little-endian length, a JSON header that
gives every tensor's type, shape and byte range, and the bytes. The header alone answers every question about names and
shapes, so a checkpoint is checked in full before its first weight is read, and no file is ever held in memory. The library
checks the header; it hands no bfloat16 to NumPy, so tensors are read here.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ...runner.common.errors import UserError
from .json_files import one_line, read_json

# NumPy has no bfloat16: its bits are the high half of a float32's.
READABLE = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
MOST_AXES = 32  # what every NumPy takes
VARIANTS = ("", "fp16", "bf16")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class TensorInfo(NamedTuple):
    """Where a tensor lies: file, type as safetensors calls it, shape, and byte offset in the file."""

    file: Path
    dtype: str
    shape: tuple
    offset: int


class TensorFiles:
    """The tensors of one component.

    `files` are the files they come from, `shapes` maps each name to its shape, `types` to its type; `read` gives one tensor.
    """

    def __init__(self, folder, stem):
        """`folder` holds `stem`.safetensors or `stem`.safetensors.index.json with its shards, or a variant (fp16, bf16)
        of either. Raises UserError if there is none, if a file is damaged, or if index and shards disagree."""
        weights = find_weights(Path(folder), stem)
        self._take(weights, read_index(weights) if weights.suffix == ".json" else read_header(weights))

    @classmethod
    def of_file(cls, path):
        """The tensors of one safetensors file. Raises UserError if it is damaged."""
        files = cls.__new__(cls)
        files._take(path, read_header(path))
        return files

    def _take(self, path, tensors):
        self._tensors = dict(sorted(tensors.items()))
        self.path = path
        self.files = tuple(sorted({info.file for info in self._tensors.values()}))
        self.shapes: Mapping = MappingProxyType({name: info.shape for name, info in self._tensors.items()})
        self.types: Mapping = MappingProxyType({name: info.dtype for name, info in self._tensors.items()})

    def read(self, name) -> np.ndarray:
        """The tensor as a new float32 array. Raises UserError if there is none of this name, if it is not of a
        floating-point type that checkpoints use, or if it holds a NaN or an infinity."""
        if name not in self._tensors:
            raise UserError(f"{self.path} has no tensor {name!r}: the checkpoint is incomplete or of another model")
        self.check_type(name)
        file, dtype, shape, offset = self._tensors[name]
        count = math.prod(shape)
        stored = np.fromfile(file, READABLE[dtype], count, offset=offset)
        if stored.size != count:
            raise UserError(f"{file} became shorter while tensor {name!r} was read")
        if dtype == "BF16":
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):  # a float64 that is too large: infinite, which is refused
            array = stored.astype(np.float32, copy=False).reshape(shape)
        if not np.isfinite(array).all():
            raise UserError(f"{file}: tensor {name!r} holds NaN or infinite values: the file is damaged or was saved "
                            "in a type too narrow for its weights")
        return array

    def check_type(self, name) -> None:
        """UserError if the tensor is not of a floating-point type that checkpoints use."""
        file, dtype, *_ = self._tensors[name]
        if dtype not in READABLE:
            raise UserError(f"{file}: tensor {name!r} is of type {dtype}; weights must be {', '.join(READABLE)}: save the "
                            "checkpoint again in one of these")


def find_weights(folder, stem) -> Path:
    """The weight file of a component, or the index of its shards; the plain one before the variants."""
    for variant in VARIANTS:
        single = folder / ".".join(filter(None, (stem, variant, "safetensors")))
        index = folder / ".".join(filter(None, (stem, "safetensors.index", variant, "json")))
        if single.is_file() and index.is_file():
            raise UserError(f"{folder} holds both {single.name} and {index.name}: remove the one that is out of date")
        for found in (single, index):
            if found.is_file():
                return found
    for pickle in sorted(path for pattern in PICKLES for path in folder.glob(pattern)):
        raise UserError(f"{pickle} is a pickle, which can run code when it is read: load the checkpoint in diffusers "
                        "and save it with pipe.save_pretrained(folder, safe_serialization=True)")
    raise UserError(f"{folder} has no weights: expected {stem}.safetensors or {stem}.safetensors.index.json")


def unique_keys(pairs):
    """json's object_pairs_hook that refuses a key given twice (Python would keep the last without a word)."""
    unique = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"{key!r} is given twice")
        unique[key] = value
    return unique


def read_header(path) -> dict:
    """Name -> TensorInfo of one safetensors file.

    The library checks that each byte range fits its type and shape, and that they fill the file without gap or overlap; it
    does not say where a tensor lies.
    """
    try:
        with safe_open(path, "numpy"), open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length), object_pairs_hook=unique_keys)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a safetensors file, or is cut or damaged ({one_line(error)}): "
                        "get it again") from None
    header.pop("__metadata__", None)
    tensors = {
        name: TensorInfo(path, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }
    for name, info in tensors.items():
        if len(info.shape) > MOST_AXES:
            raise UserError(f"{path}: tensor {name!r} has {len(info.shape)} axes, more than any weight: the file is damaged")
    return tensors


def read_index(path) -> dict:
    """Name -> TensorInfo of a sharded checkpoint: index and shards must name the same tensors."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{path}: weight_map must map tensor names to file names")
    tensors = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise UserError(f"{path}: shard {shard!r} must be a plain file name")
        file = path.parent / shard
        if not file.is_file():
            raise UserError(f"{path} names the shard {shard}, which is missing: download it into {path.parent}")
        held, named = read_header(file), {name for name, home in weight_map.items() if home == shard}
        for name in sorted(named - held.keys()):
            raise UserError(f"{path} places tensor {name!r} in {shard}, which lacks it: "
                            "the files do not belong together")
        for name in sorted(held.keys() - named):
            raise UserError(f"{file} holds tensor {name!r}, which {path.name} does not place there: "
                            "the files do not belong together")
        tensors.update(held)
    return tensors
