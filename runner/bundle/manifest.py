"""What a bundle says of itself: the data classes behind ``manifest.json``, read strictly and written back the same.

Reading refuses a manifest that is cut, from the future, or that points outside its bundle; every refusal is one
line that names the field.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ..common.errors import UserError
from .mindir_archive import archive_of

FILE_NAME = "manifest.json"
FORMAT = 3
DTYPES = ("float32", "int32")
LARGEST_SIDE = 2**24  # no axis of a Kandinsky tensor comes near it: a larger one is a damaged manifest
MOST_ELEMENTS = 2**36  # nor any tensor to this
ALWAYS = ("constants.npz", "tokenizer.json")  # files of every bundle
UNSEALED = f'"seal": "{"0" * 64}"'


@dataclass(frozen=True)
class TensorInfo:
    """Name, static shape and type ("float32" or "int32") of a graph's input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def from_json(cls, data: Any, where: str) -> TensorInfo:
        shape = _take(data, "shape", list, where)
        if not all(map(_positive, shape)) or math.prod(shape) > MOST_ELEMENTS:
            raise UserError(f"{where}.shape is {_short(shape)}: it must hold positive sizes; export the bundle again")
        dtype = _take(data, "dtype", str, where)
        if dtype not in DTYPES:
            raise UserError(f"{where}.dtype is {dtype!r}: known are {', '.join(DTYPES)}; export the bundle again")
        return cls(_take(data, "name", str, where), tuple(shape), dtype)


@dataclass(frozen=True)
class GraphInfo:
    """One compiled graph: `part` owns its weights, `size` is (height, width) in pixels where it has one.

    mindir: as MindSpore wrote it. lite: lowered to what Lite 2.0 reads. Both lie in their part's archive
    (mindir_archive.py). ms: recipes (ms_file.py) of the same in Lite's own format, which loads faster: one, or those of
    the pieces (engine/chain.py) that a large graph is cut into, in order of execution; none where there are none.
    """

    name: str
    part: str
    batch: int
    size: tuple[int, int] | None
    mindir: str
    lite: str
    ms: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @classmethod
    def from_json(cls, data: Any, where: str) -> GraphInfo:
        size = data.get("size") if isinstance(data, dict) else None
        if size is not None and not (isinstance(size, list) and len(size) == 2 and all(_positive(n) for n in size)):
            raise UserError(f"{where}.size is {size!r}: it must be [height, width] or null; export the bundle again")
        batch = _take(data, "batch", int, where)
        if not _positive(batch):
            raise UserError(f"{where}.batch is {batch}: it must be positive; export the bundle again")
        tensors = {
            side: tuple(TensorInfo.from_json(item, f"{where}.{side}[{i}]")
                        for i, item in enumerate(_take(data, side, list, where)))
            for side in ("inputs", "outputs")
        }
        recipes = _take(data, "ms", list, where)
        for path in recipes:
            if not isinstance(path, str):
                raise UserError(f"{where}: 'ms' is {_short(path)}, not of type str; export the bundle again")
        return cls(
            name=_take(data, "name", str, where),
            part=inside(_take(data, "part", str, where), f"{where}.part"),
            batch=batch,
            size=tuple(size) if size else None,
            mindir=inside(_take(data, "mindir", str, where), f"{where}.mindir"),
            lite=inside(_take(data, "lite", str, where), f"{where}.lite"),
            ms=tuple(inside(path, f"{where}.ms") for path in recipes),
            **tensors,
        )

    def input(self, name: str) -> TensorInfo:
        return next(tensor for tensor in self.inputs if tensor.name == name)


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 (hexadecimal) of a file of the bundle."""

    size: int
    sha256: str

    @classmethod
    def from_json(cls, data: Any, where: str) -> FileInfo:
        size, sha256 = _take(data, "size", int, where), _take(data, "sha256", str, where)
        if size < 0 or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise UserError(f"{where} is damaged; export the bundle again")
        return cls(size, sha256)


@dataclass(frozen=True)
class Manifest:
    """A whole bundle.

    settings: what the runner needs of the checkpoint's configuration: ``movq_scale_factor``, ``prior_time_proj`` and
    ``unet_time_proj`` (``flip_sin_to_cos``, ``freq_shift``).
    schedulers: ``prior`` and ``decoder``, each a diffusers ``scheduler_config.json``.
    defaults: ``prior`` and ``decoder``: default ``num_inference_steps``, ``guidance_scale``; the decoder's
    ``height``, ``width`` and ``scheduler``, a short name ("checkpoint" for the one in `schedulers`).
    """

    sizes: tuple[tuple[int, int], ...]
    graphs: tuple[GraphInfo, ...]
    files: dict[str, FileInfo]
    settings: dict[str, Any]
    schedulers: dict[str, dict]
    tokenizer: dict[str, Any]
    image_processor: dict[str, Any] | None
    defaults: dict[str, dict]
    source: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def parse(cls, text: str, where: str = FILE_NAME) -> Manifest:
        """The manifest in `text`; UserError if it is not one that this version reads."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({error}): it is cut or damaged; export the bundle again") from None
        version = _take(data, "format", int, where)
        if version != FORMAT:
            raise UserError(f"{where} has format {version}, this version reads format {FORMAT}: use a matching version "
                            "of kandinsky-mindir or export the bundle again")
        if not is_sealed(text, _take(data, "seal", str, where)):
            raise UserError(f"{where} is not as export wrote it: it is damaged, or was edited; export the bundle again")
        files = {
            inside(path, f"{where}: files"): FileInfo.from_json(info, f"{where}: files[{path!r}]")
            for path, info in _take(data, "files", dict, where).items()
        }
        sizes = _take(data, "sizes", list, where)
        right = [isinstance(size, list) and len(size) == 2 and all(map(_positive, size)) for size in sizes]
        if not all(right) or not right:
            raise UserError(f"{where}: sizes is {_short(sizes)}, not a list of [height, width]; export the bundle again")
        graphs = tuple(
            GraphInfo.from_json(graph, f"{where}: graphs[{i}]") for i, graph in enumerate(_take(data, "graphs", list, where))
        )
        for graph in graphs:
            for path in (archive_of(graph.mindir), archive_of(graph.lite), *graph.ms, f"{graph.part}/weights.bin"):
                if path not in files:
                    raise UserError(f"{where}: graph {graph.name} uses {path}, which files does not list; export again")
        for path in ALWAYS:
            if path not in files:
                raise UserError(f"{where}: files does not list {path}: it is damaged; export the bundle again")
        for key, fields in FIELDS.items():
            _check(_take(data, key, dict, where), fields, f"{where}: {key}")
        rest = {key: data[key] for key in FIELDS}
        for key in ("image_processor", "source", "versions"):
            if not isinstance(data.get(key), (dict, type(None))):
                raise UserError(f"{where}: {key} is {_short(data[key])}, not of type dict; export the bundle again")
        return cls(
            sizes=tuple(tuple(size) for size in sizes),
            graphs=graphs,
            files=files,
            image_processor=data.get("image_processor"),
            source=data.get("source") or {},
            versions=data.get("versions") or {},
            **rest,
        )

    def dump(self) -> str:
        return sealed(dataclasses.asdict(self))

    def has(self, name: str) -> bool:
        return any(graph.name == name for graph in self.graphs)

    def find(self, name: str, batch: int = 1, size: tuple[int, int] | None = None) -> GraphInfo:
        """The graph called `name` for that batch and size; UserError if the bundle lacks it."""
        graphs = [graph for graph in self.graphs if graph.name == name]
        if not graphs:
            raise UserError(f"this bundle has no {name}: export it again with that part")
        for graph in graphs:
            if graph.batch == batch and graph.size == size:
                return graph
        if size is not None and size not in self.sizes:
            known = ", ".join(f"{h}x{w}" for h, w in self.sizes)
            raise UserError(f"this bundle has no size {size[0]}x{size[1]} (it has {known}): choose one of them or export it")
        raise UserError(f"this bundle has no {name} for batch {batch}: export it again")


def sealed(data: dict) -> str:
    """A manifest's text: `data` and its seal, the sha256 of the text as it is with zeros in place of the seal."""
    text = json.dumps({**data, "seal": "0" * 64}, indent=1, sort_keys=True) + "\n"
    return text.replace(UNSEALED, _seal(hashlib.sha256(text.encode()).hexdigest()))


def is_sealed(text: str, seal: str) -> bool:
    return hashlib.sha256(text.replace(_seal(seal), UNSEALED).encode()).hexdigest() == seal


def _seal(sha256: str) -> str:
    return f'"seal": "{sha256}"'


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_SIDE


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_SIDE


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST_SIDE  # no NaN


def _time_proj(value: Any) -> bool:
    return (isinstance(value, dict) and value.keys() == {"flip_sin_to_cos", "freq_shift"}
            and isinstance(value["flip_sin_to_cos"], bool) and _number(value["freq_shift"]))


# What the runner reads of the sections: for each field a test of its value, or the fields below it.
_SAMPLING = {"num_inference_steps": _positive, "guidance_scale": _number}
FIELDS = {
    "settings": {"movq_scale_factor": _positive, "prior_time_proj": _time_proj, "unet_time_proj": _time_proj},
    "schedulers": {"prior": {}, "decoder": {}},
    "tokenizer": {"max_length": _positive, "pad_token_id": _whole, "eos_token_id": _whole},
    "defaults": {
        "prior": _SAMPLING,
        "decoder": {**_SAMPLING, "height": _positive, "width": _positive, "scheduler": _text},
    },
}


def _check(section: dict, fields: dict, where: str) -> None:
    for name, expected in fields.items():
        if isinstance(expected, dict):
            _check(_take(section, name, dict, where), expected, f"{where}.{name}")
        elif not expected(_take(section, name, object, where)):
            raise UserError(f"{where}.{name} is {_short(section[name])}: it is damaged; export the bundle again")


def _take(data: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(data, dict) or key not in data:
        raise UserError(f"{where} has no {key!r}: it is cut or damaged; export the bundle again")
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where}: {key!r} is {_short(value)}, not of type {kind.__name__}; export the bundle again")
    return value


def inside(path: str, where: str) -> str:
    """`path` if it is relative and stays inside the bundle."""
    parts = PurePosixPath(path)
    if not parts.name or parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        raise UserError(f"{where}: the path {_short(path)} leaves the bundle; do not use this bundle")
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def count(shape: tuple[int, ...]) -> int:
    """Elements of a tensor of that shape."""
    return math.prod(shape)
