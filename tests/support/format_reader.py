"""A reader of bundles, written from runner/bundle/FORMAT.md alone: no module of the project is used.

It lists tensors and gets their values, assembles `.ms` files, reads MindIR files, constants and sealed examples.
"""

import bz2
import hashlib
import json
import lzma
import struct
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np


class Refused(Exception):
    """The bundle is not what FORMAT.md says."""


class Reader:
    """A bundle; its manifest is checked when it is opened, each file when it is used."""

    def __init__(self, folder):
        self.folder, self.contents = Path(folder), {}
        text = (self.folder / "manifest.json").read_bytes()
        self.manifest = json.loads(text, parse_constant=refuse)
        if self.manifest["format"] not in (4, 5, 6):
            raise Refused(f"format {self.manifest['format']}")
        seal = self.manifest["seal"]
        unsealed = text.replace(f'"seal": "{seal}"'.encode(), f'"seal": "{"0" * 64}"'.encode())
        if hashlib.sha256(unsealed).hexdigest() != seal:
            raise Refused("the seal is broken")
        for path, info in self.manifest["files"].items():
            parts = PurePosixPath(path).parts
            if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
                raise Refused(f"{path!r} leaves the bundle")
            if (self.folder / path).stat().st_size != info["size"]:
                raise Refused(f"{path} is cut")

    def file(self, path):
        """The content of a file, which is read and checked once."""
        if path in self.contents:
            return self.contents[path]
        if path not in self.manifest["files"]:
            raise Refused(f"{path} is not listed")
        content = (self.folder / path).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest["files"][path]["sha256"]:
            raise Refused(f"{path} is damaged")
        self.contents[path] = content
        return content

    @property
    def parts(self):
        return sorted({graph["part"] for graph in self.manifest["graphs"]})

    def tensors(self, part):
        """name -> {file, offset, shape, dtype}"""
        return json.loads(self.file(f"{part}/weights.index.json"))

    def tensor(self, part, name):
        """The values of a tensor, float32."""
        found = self.tensors(part)[name]
        data, shape = self.file(f"{part}/{found['file']}"), found["shape"]
        stored = (3, 3, *shape[1:]) if "taps" in found else shape
        values = self.values(found, data, stored)
        if "taps" in found:
            planes = values.reshape(9, -1).astype(np.float64)
            values = np.stack([sum(factor * plane for factor, plane in zip(row, planes)) for row in found["taps"]]).astype(np.float32)
        return values.reshape(shape)

    def values(self, found, data, shape):
        """What lies at a tensor's offset, float32."""
        types = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "i1"}
        values = np.frombuffer(data, types[found["dtype"]], int(np.prod(shape)), found["offset"])
        if found["dtype"] == "bfloat16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        if found["dtype"] != "int8":
            return values.astype(np.float32)
        rows = int(np.prod(shape[: 3 if "taps" in found else 1]))
        groups = -(-values.size // rows // 32)
        factors = np.frombuffer(data, "<f2", rows * groups, found["scales"]).astype(np.float32).reshape(rows, groups)
        values = values.reshape(rows, -1)
        return values * np.repeat(factors, 32, axis=1)[:, : values.shape[1]]

    def weights(self, part):
        """The bytes of weights.bin, which from version 5 on follow from others."""
        if f"{part}/weights.bin" in self.manifest["files"]:
            return self.file(f"{part}/weights.bin")
        if part not in self.contents:
            content = bytearray([1] + [0] * 63)
            for name, found in self.tensors(part).items():
                length = 4 * int(np.prod(found["shape"]))
                content += bytes(-len(content) % (65_536 if length >= 262_144 else 64))
                content += self.tensor(part, name).tobytes() if found["file"].startswith("stored_") else bytes(length)
            self.contents[part] = bytes(content)
        return self.contents[part]

    def source(self, path):
        """The content of a file that layouts and MindIR name."""
        part, _, name = path.partition("/")
        return self.weights(part) if name == "weights.bin" else self.file(path)

    def ms(self, path):
        """The `.ms` file of a layout."""
        table, skeleton = lzma.decompress(self.file(path)).split(b"\n", 1)
        result, used, end = [], 0, 0
        for position, source, offset, length in json.loads(table):
            if position < end:
                raise Refused("stretches overlap")
            result.append(skeleton[used : used + position - end])
            used += position - end
            content = self.source(str(PurePosixPath(path).with_name(source))) if source else None
            result.append(content[offset : offset + length] if source else bytes(length))
            end = position + length
        return b"".join([*result, skeleton[used:]])

    def mindir(self, path):
        """A MindIR file out of its part's archive."""
        archive = PurePosixPath(path).with_name("mindir.zip")
        self.file(str(archive))
        with zipfile.ZipFile(self.folder / archive) as members:
            info = members.getinfo(PurePosixPath(path).name)
            with open(self.folder / archive, "rb") as file:
                file.seek(info.header_offset + 26)
                name, extra = struct.unpack("<HH", file.read(4))
                file.seek(name + extra, 1)
                return bz2.BZ2Decompressor().decompress(file.read(info.compress_size), info.file_size)

    def arrays(self, path):
        """The arrays of a `.npz` file."""
        self.file(path)
        with np.load(self.folder / path, allow_pickle=False) as found:
            return dict(found)

    def example(self, graph):
        """(inputs by name, [(positions in the output, values there, rms, rounding)] of the outputs)"""
        found = self.arrays(graph["mindir"].removesuffix(".mindir") + ".golden.npz")
        elsewhere = graph["mindir"].removesuffix(".mindir") + ".inputs.npz"
        given = self.arrays(elsewhere) if elsewhere in self.manifest["files"] else found
        inputs = {name.removeprefix("input."): array for name, array in given.items() if name.startswith("input.")}
        values = np.split(found["values"], np.cumsum(found["sizes"])[:-1])
        outputs = []
        for tensor, kept, rms, rounding in zip(graph["outputs"], values, found["rms"], found["rounding"]):
            size = int(np.prod(tensor["shape"]))
            spread = np.floor(np.arange(len(kept)) * ((5**0.5 - 1) / 2) % 1 * size).astype(int)
            outputs.append((np.arange(size) if len(kept) == size else spread, kept, rms, rounding))
        return inputs, outputs


def refuse(word):
    raise Refused(f"{word} is no JSON")
