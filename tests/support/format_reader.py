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
        if self.manifest["format"] != 4:
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
        """The values of a tensor, as they are stored."""
        found = self.tensors(part)[name]
        if found["dtype"] != "float32":
            raise Refused(found["dtype"])
        count = int(np.prod(found["shape"]))
        return np.frombuffer(self.file(f"{part}/{found['file']}"), "<f4", count, found["offset"]).reshape(found["shape"])

    def ms(self, path):
        """The `.ms` file of a layout."""
        table, skeleton = lzma.decompress(self.file(path)).split(b"\n", 1)
        result, used, end = [], 0, 0
        for position, source, offset, length in json.loads(table):
            if position < end:
                raise Refused("stretches overlap")
            result.append(skeleton[used : used + position - end])
            used += position - end
            content = self.file(str(PurePosixPath(path).with_name(source))) if source else None
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
        inputs = {name.removeprefix("input."): array for name, array in found.items() if name.startswith("input.")}
        values = np.split(found["values"], np.cumsum(found["sizes"])[:-1])
        outputs = []
        for tensor, kept, rms, rounding in zip(graph["outputs"], values, found["rms"], found["rounding"]):
            size = int(np.prod(tensor["shape"]))
            spread = np.floor(np.arange(len(kept)) * ((5**0.5 - 1) / 2) % 1 * size).astype(int)
            outputs.append((np.arange(size) if len(kept) == size else spread, kept, rms, rounding))
        return inputs, outputs


def refuse(word):
    raise Refused(f"{word} is no JSON")
