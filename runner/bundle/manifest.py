"""What a bundle says of itself: the data classes behind ``manifest.json``, read strictly and written back the same.

Reading refuses a manifest that is cut, from another version, or that points outside its bundle; every refusal is one
line that names the field. FORMAT.md says what the fields mean to other programs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..common.errors import UserError
from .mindir_archive import TargetGraph, archive_of
from .tensor_index import STORED, WEIGHTS, index_of

FILE_NAME = "manifest.json"
FORMAT = 4  # with all weights in float32
STORED_FORMAT = 5  # with weights in the types of tensor_index.py
MERGED_FORMAT = 6  # with weights that a merge has put in the place of others, and examples on the inputs of those before
FORMATS = (FORMAT, STORED_FORMAT, MERGED_FORMAT)
LARGEST_SIDE = 2**24  # no axis of a Kandinsky tensor comes near it: a larger one is a damaged manifest
MOST_ELEMENTS = 2**36  # nor any tensor to this
ALWAYS = ("constants.npz", "tokenizer.json")  # files of every bundle
UNSEALED = f'"seal": "{"0" * 64}"'
REMEDY = "export the bundle again"

T = TypeVar("T")
Positive = Annotated[int, Meta(gt=0, le=LARGEST_SIDE)]
Whole = Annotated[int, Meta(ge=0, le=LARGEST_SIDE)]
Number = Annotated[int, Meta(ge=-LARGEST_SIDE, le=LARGEST_SIDE)] | Annotated[float, Meta(ge=-LARGEST_SIDE, le=LARGEST_SIDE)]
Size = tuple[Positive, Positive]


@dataclass(frozen=True)
class TensorInfo:
    """Name, static shape and type ("float32" or "int32") of a graph's input or output."""

    name: str
    shape: tuple[Positive, ...]
    dtype: Literal["float32", "int32"]


@dataclass(frozen=True)
class GraphInfo:
    """One compiled graph: `part` owns its weights, `size` is (height, width) in pixels where it has one.

    mindir: as MindSpore wrote it. lite: lowered to what Lite 2.0 reads. Both lie in their part's archive
    (mindir_archive.py). ms: layouts (ms_layout.py) of the same in Lite's own format, which loads faster: one, or those of
    the pieces (engine/chain.py) that a large graph is cut into, in order of execution; none where there are none.
    """

    name: str
    part: str
    batch: Positive
    size: Size | None
    mindir: str
    lite: str
    ms: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @classmethod
    def from_json(cls, data: Any, where: str) -> GraphInfo:
        """The graph that `data` describes; UserError, with `where`, if it is none."""
        graph = convert(data, cls, where)
        for name, path in {"part": graph.part, "mindir": graph.mindir, "lite": graph.lite}.items():
            inside(path, f"{where}.{name}")
        for path in graph.ms:
            inside(path, f"{where}.ms")
        for side in ("inputs", "outputs"):
            for i, tensor in enumerate(getattr(graph, side)):
                if math.prod(tensor.shape) > MOST_ELEMENTS:
                    raise UserError(f"{where}.{side}[{i}].shape is {shortened(tensor.shape)}, more than any tensor "
                                    f"has; {REMEDY}")
        return graph

    @property
    def title(self) -> str:
        """The graph's name, its batch and its size in pixels."""
        size = f" {self.size[0]}x{self.size[1]}" if self.size else ""
        return f"{self.name} batch {self.batch}{size}"

    def input(self, name: str) -> TensorInfo:
        return next(tensor for tensor in self.inputs if tensor.name == name)


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and sha256 (hexadecimal) of a file of the bundle."""

    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


# What the runner reads of the other sections. They stay dictionaries.


class _TimeProj(Struct, forbid_unknown_fields=True):
    flip_sin_to_cos: bool
    freq_shift: Number


class _Settings(Struct):
    movq_scale_factor: Positive
    prior_time_proj: _TimeProj
    unet_time_proj: _TimeProj


class _Schedulers(Struct):
    prior: dict[str, Any]
    decoder: dict[str, Any]


class _Tokenizer(Struct):
    max_length: Positive
    pad_token_id: Whole
    eos_token_id: Whole


class _Sampling(Struct):
    num_inference_steps: Positive
    guidance_scale: Number


class _Decoding(_Sampling):
    height: Positive
    width: Positive
    scheduler: str


class _Defaults(Struct):
    prior: _Sampling
    decoder: _Decoding


class _File(Struct):
    """The whole file. Graphs and files are read one by one, for errors that say which."""

    sizes: Annotated[tuple[Size, ...], Meta(min_length=1)]
    graphs: list[Any]
    files: dict[str, Any]
    settings: _Settings
    schedulers: _Schedulers
    tokenizer: _Tokenizer
    defaults: _Defaults
    image_processor: dict[str, Any] | None = None
    source: dict[str, str] | None = None
    versions: dict[str, str] | None = None
    targets: dict[str, tuple[TargetGraph, ...]] | None = None


class _Format(Struct):
    format: int


class Versioned(_Format):
    """What every manifest has: its format's number, and the sha256 of its text."""

    seal: str


@dataclass(frozen=True)
class Manifest:
    """A whole bundle.

    settings: what the runner needs of the checkpoint's configuration: ``movq_scale_factor``, ``prior_time_proj`` and
    ``unet_time_proj`` (``flip_sin_to_cos``, ``freq_shift``).
    schedulers: ``prior`` and ``decoder``, each a diffusers ``scheduler_config.json``.
    defaults: ``prior`` and ``decoder``: default ``num_inference_steps``, ``guidance_scale``; the decoder's
    ``height``, ``width`` and ``scheduler``, a short name ("checkpoint" for the one in `schedulers`).
    targets: "ascend": the same graphs compiled for it, where export was asked to.
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
    targets: dict[str, tuple[TargetGraph, ...]] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def parse(cls, text: str, where: str = FILE_NAME) -> Manifest:
        """The manifest in `text`; UserError if it is not one that this version reads."""
        try:
            data = msgspec.json.decode(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({error}): it is cut or damaged; {REMEDY}") from None
        version = convert(data, _Format, where).format
        if version not in FORMATS:
            raise UserError(f"{where} has format {shortened(version)}, this version reads formats {FORMATS[0]} to {FORMATS[-1]}: "
                            f"use a matching version of kandinsky-mindir or {REMEDY}")
        if not is_sealed(text, convert(data, Versioned, where).seal):
            raise UserError(f"{where} is not as export wrote it: it is damaged, or was edited; {REMEDY}")
        found = convert(data, _File, where)
        files = {inside(path, f"{where}: files"): convert(info, FileInfo, f"{where}: files[{path!r}]")
                 for path, info in found.files.items()}
        graphs = tuple(GraphInfo.from_json(graph, f"{where}: graphs[{i}]") for i, graph in enumerate(found.graphs))
        for graph in graphs:
            archives = archive_of(graph.mindir), archive_of(graph.lite)
            stored = version >= STORED_FORMAT and f"{graph.part}/{STORED}" in files
            for path in (*archives, *graph.ms, f"{graph.part}/{STORED if stored else WEIGHTS}", index_of(graph.part)):
                if path not in files:
                    raise UserError(f"{where}: graph {graph.name} uses {path}, which files does not list; export again")
        for row in (row for rows in (found.targets or {}).values() for row in rows):
            if archive_of(inside(row.mindir, f"{where}: targets.mindir")) not in files:
                raise UserError(f"{where}: targets uses {shortened(row.mindir)}, whose archive files does not list; {REMEDY}")
        for path in (name for name in ALWAYS if name not in files):
            raise UserError(f"{where}: files does not list {path}: it is damaged; {REMEDY}")
        return cls(
            sizes=found.sizes,
            graphs=graphs,
            files=files,
            format=version,
            image_processor=found.image_processor,
            source=dict(found.source or {}),
            versions=found.versions or {},
            targets=found.targets or {},
            **{name: data[name] for name in ("settings", "schedulers", "tokenizer", "defaults")},
        )

    def dump(self) -> str:
        data = dataclasses.asdict(self)
        return sealed(data if self.targets else {name: value for name, value in data.items() if name != "targets"})

    def for_target(self, name: str) -> Manifest:
        """The same with the MindIR of a target, where the graphs have one."""
        found = {(row.name, row.batch, row.size): row.mindir for row in self.targets.get(name, ())}
        graphs = [dataclasses.replace(graph, mindir=found.get((graph.name, graph.batch, graph.size), graph.mindir))
                  for graph in self.graphs]
        return dataclasses.replace(self, graphs=tuple(graphs))

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


def convert(data: Any, kind: type[T], where: str, remedy: str = REMEDY) -> T:
    """`data`, as JSON gives it, as a `kind`: a class of msgspec, or a data class. UserError names the field."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).replace("`", "'").partition(" - at '$")
        path = path.removesuffix("'")
        raise UserError(f"{where}{path if path[:1] != '.' or where.endswith(']') else f': {path[1:]}'}: {_lower(reason)}: "
                        f"it is damaged; {remedy}") from None


def inside(path: str, where: str, advice: str = "do not use this bundle") -> str:
    """`path` if it is relative and stays inside the bundle."""
    parts = PurePosixPath(path)
    if not parts.name or parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        raise UserError(f"{where}: the path {shortened(path)} leaves the bundle; {advice}")
    return path


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
