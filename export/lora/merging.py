"""A LoRA merged into a bundle that is there: new weights for what it changes, all else shared, nothing compiled.

A part's index says where each weight lies. Weights that change are written to a further file, and the part's graphs are
pointed there. A graph in which Lite's converter has put a changed weight into another form is converted anew. Then the
changed graphs are sealed and verified as an export does it: examples in float64 from the merged weights, held to Lite.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mindspore.train.mind_ir_pb2 import ModelProto

from ...models import winograd
from ...runner import engine as engines
from ...runner.bundle import mindir_archive
from ...runner.bundle.checked_files import sha256_of
from ...runner.bundle.manifest import FILE_NAME, FileInfo, GraphInfo, Manifest
from ...runner.bundle.ms_layout import LITE_WEIGHTS, Layout
from ...runner.bundle.opened import Bundle
from ...runner.bundle.sealed_examples import file_name
from ...runner.bundle.stored.wide_file import read_tensor
from ...runner.bundle.tensor_index import StoredTensor, index_of, write_index
from ...runner.common.errors import UserError
from ...runner.loading.models import Models
from ...runner.upkeep.replay import verify
from ..bundle import check_verdicts
from ..checkpoint.tensor_names import channels_last
from ..contents.ms_files import MsWriter, WeightStore
from ..contents.seal_examples import seal
from ..contents.weights import WeightsWriter
from ..draft import Draft
from ..graphs.reader import read_model
from ..parts import pieces_for_lite
from ..staging import check_target, real, staged_folder
from .adapter import Adapter, Given, changed_parts
from .pointing import Moves, Place, point_layout, point_mindir, twins
from .spelling import PARTS, Modules
from .tensors import RECORD, WEIGHT, added, record, total

SEALED = "sealed"  # of Manifest.source: what the examples were judged against
UNET = "unet"  # what a LoRA calls the part that it changes, whichever decoder's it is
UNETS = {"text": "unet", "inpaint": "inpaint_unet", "depth": "controlnet_unet"}  # by the decoders that a merge is asked for
MARGIN = 1.1  # of the disk that the weights take
PRODUCT = re.compile(r"(?P<module>.+)\.(?P<kind>plain|doubled)_(?P<column>\d+)")  # checkpoint/tensor_names.py: with_products
COMBINATIONS = {"plain": winograd.PLAIN, "doubled": winograd.DOUBLED}


class Merged(NamedTuple):
    """What a merge did. changed: bytes of the weights that differ. written: of all files that the new bundle does not share.
    converted: graphs that Lite's converter took anew. seconds: to write the weights and point the graphs; to seal and verify.
    """

    adapters: list[Adapter]
    changed: int
    written: int
    converted: list[str]
    seconds: tuple[float, float]


def merge_bundle(
    bundle: str | Path, loras: Sequence[Given], output: str | Path, *, decoders: Sequence[str] = (), overwrite: bool = False,
    engine: str = "auto", progress: bool = True,
) -> Merged:
    """Write the bundle `output`: `bundle` with LoRAs added to its weights. Its other files are the same ones on the disk.

    decoders: keys of UNETS, whose UNets take what is for a UNet; none for that of texts, or all of a bundle without it.
    Weights that change are stored as float32, whatever the others are stored as: nothing of the sums is lost. UserError for a
    bundle that is damaged; for a LoRA as Adapter says; if `output` is there, unless `overwrite`. Whatever ends it leaves nothing,
    but for a bundle whose graphs do not compute what they should on this machine: it stays as OUTPUT.failed.
    """
    started = time.monotonic()
    check_target(Path(output), overwrite)
    base = Bundle(real(bundle), use_packed=False)
    if real(output) == base.path:
        raise UserError(f"{output} is the bundle that is merged: choose another --output")
    if base.manifest.targets:
        raise UserError(f"{bundle} has graphs for {' and '.join(base.manifest.targets)}, too: export the checkpoint with --lora "
                        "and --target")
    unets = _unets(base, decoders)
    changing = {"prior": ["prior"], UNET: unets}  # by what a LoRA calls it
    indexes = {part: base.places(part) for parts in changing.values() for part in parts}
    modules = Modules({part: _weights(indexes[changing[part][0]]) for part in PARTS})
    adapters = [Adapter(given, modules) for given in loras]
    if not adapters:
        raise UserError("nothing to merge: give at least one --lora FILE")
    parts = [_Part(base, name, indexes[name], adapters, part, modules.shapes[part])
             for part in changed_parts(adapters) for name in changing[part]]
    others = [name for name, part in UNETS.items() if base.manifest.has(part) and part not in unets]
    if others and not decoders and UNET in changed_parts(adapters):
        warnings.warn(f"the LoRA changes the decoder for texts alone: {' and '.join(others)} stay as they are, unless you say "
                      f"--decoder text {' '.join(f'--decoder {name}' for name in others)}", stacklevel=2)
    lite = engines.create(engine)
    need, free = MARGIN * sum(part.changed for part in parts), shutil.disk_usage(real(output).parent).free
    if need > free:
        raise UserError(f"the merged weights take {need / 1e6:,.0f} MB and {real(output).parent} has {free / 1e6:,.0f} MB left: "
                        "make room, or choose another --output")

    with staged_folder(Path(output), overwrite) as folder:
        kept = _link(base, folder, {name for part in parts for name in part.replaced})
        converted = [title for part in parts for title in part.write(folder, lite)]
        graphs = [graph for part in parts for graph in part.graphs]
        written = time.monotonic()
        manifest = replace(base.manifest, source=_source(base, adapters, graphs))
        seal(Draft(folder, manifest), progress)
        manifest = replace(manifest, files=_files(folder, base.manifest, kept))
        (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
        changed = replace(manifest, graphs=tuple(graphs))
        check_verdicts(verify(Models(Draft(folder, changed), lite, keep_loaded=False), files=False))
        fresh = sum(info.size for name, info in manifest.files.items() if base.manifest.files.get(name) != info)
    return Merged(adapters, sum(part.changed for part in parts), fresh + (real(output) / FILE_NAME).stat().st_size, converted,
                  (written - started, time.monotonic() - written))


def _unets(base: Bundle, decoders: Sequence[str]) -> list[str]:
    """The parts of a bundle that take what is for a UNet."""
    there = [name for name, part in UNETS.items() if base.manifest.has(part)]
    if lacking := [name for name in decoders if name not in there]:
        raise UserError(f"{base.path} has no decoder {lacking[0]}: it has {', '.join(there)}")
    return [UNETS[name] for name in there if name in (decoders or (there[:1] if "text" in there else there))]


def _weights(index: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    """Module -> shape of its weight in the checkpoint's layout, of what LoRAs can change."""
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in index.items():
        if match := PRODUCT.fullmatch(name):
            found[match["module"]] = (*tensor.shape[1:], 3, 3)
        elif name.endswith(WEIGHT) and len(tensor.shape) in (2, 4):
            out, *window, taken = tensor.shape
            found[name.removesuffix(WEIGHT)] = (out, taken, *window)
    return found


class _Part:
    """A part that LoRAs change. index: where graphs find its weights. graphs: those that change with it. replaced: files of the
    bundle that it writes anew. changed: bytes of the weights that differ, float32.
    called: what the LoRAs call it. shapes: of the weights that they are for."""

    def __init__(self, base: Bundle, name: str, index: Mapping[str, StoredTensor], adapters: Sequence[Adapter], called: str,
                 shapes: Mapping[str, tuple[int, ...]]):
        self.name, self._base, self._index, self._adapters, self._called = name, base, index, adapters, called
        modules = {module for adapter in adapters for part, module in adapter.pairs if part == called}
        own = _weights(index)
        if wrong := sorted(module for module in modules if own.get(module) != shapes[module]):
            raise UserError(f"{base.path}: {wrong[0]} of the {name} has another shape than in the first of these decoders: "
                            "merge into one decoder")
        self._tensors = {tensor: module for tensor in index if (module := _module_of(tensor)) in modules}
        for file in base.weights_of(name):
            base.file(file)
        self.changed = sum(index[tensor].length for tensor in self._tensors)
        places = {Place.of(index[tensor]) for tensor in self._tensors}
        self._models = {
            path: read_model(base.mindir(path), path)
            for graph in base.manifest.graphs if graph.part == name for path in (graph.mindir, graph.lite)
        }
        self.graphs = [graph for graph in base.manifest.graphs
                       if graph.part == name and places & _places_of(self._models[graph.mindir])]
        self.replaced = {index_of(name), mindir_archive.archive_of(f"{name}/any")}
        self.replaced |= {path for graph in self.graphs for path in (*graph.ms, file_name(graph))}

    def write(self, folder: Path, engine: engines.Engine) -> list[str]:
        """Write the changed weights, and the graphs over them; the titles of those that were converted anew."""
        moves = self._write_weights(folder / self.name)
        index = {name: moves.get(Place.of(place), place) for name, place in self._index.items()}
        stored = self._base.tensors(self.name)
        write_index(folder / index_of(self.name),
                    {name: moves.get(Place.of(self._index[name]), tensor) for name, tensor in stored.items()})
        unsure, anew = twins(self._base.path / self.name, self._index.values(), moves), []
        for graph in self.graphs:
            left = point_mindir(self._models[graph.mindir], moves)
            point_mindir(self._models[graph.lite], moves)
            layouts = {path: point_layout(Layout.read(self._base.file(path)), moves) for path in graph.ms}
            reached = {place for _, places in layouts.values() for place in places}
            if layouts and (left != reached or reached & unsure):
                anew.append(graph)
                continue
            for path, (layout, _) in layouts.items():
                (folder / path).write_bytes(layout.dump())
        for path, model in self._models.items():
            (folder / path).write_bytes(model.SerializeToString())
        if anew:
            self._convert(folder, anew, index, engine)
        mindir_archive.pack(folder / self.name)
        return [graph.title for graph in anew]

    def _write_weights(self, folder: Path) -> Moves:
        """Write the changed tensors to a file of their own, and read them back."""
        name = next(name for number in range(1, len(self._base.manifest.files) + 2)
                    if f"{self.name}/{(name := f'merged_{number}_weights.bin')}" not in self._base.manifest.files)
        moves: dict[Place, StoredTensor] = {}
        module, delta = "", np.zeros(())
        with WeightsWriter(folder / name, open(folder / name, "wb")) as writer:
            for tensor, owner in self._tensors.items():
                if owner != module:  # tensors of a module lie together
                    module, delta = owner, total(self._adapters, self._called, owner)
                old = self._index[tensor]
                array = read_tensor(self._base.path / self.name, old)
                writer.write(tensor, added(array, _as_stored(tensor, delta), tensor))
                moves[Place.of(old)] = writer.index[tensor]
        return moves

    def _convert(self, folder: Path, graphs: Sequence[GraphInfo], index: dict[str, StoredTensor], engine: engines.Engine) -> None:
        lite_weights = f"{self.name}/{LITE_WEIGHTS}"
        if (folder / lite_weights).exists():  # it is shared, and grows
            (folder / lite_weights).unlink()
            shutil.copyfile(self._base.file(lite_weights), folder / lite_weights)
        store = WeightStore(folder / self.name, index)
        for graph in self._base.manifest.graphs:
            if graph.part == self.name and graph not in graphs:
                for path in graph.ms:
                    store.know(Layout.read(folder / path))
        with MsWriter(engine, store) as writer:
            if not writer.possible:
                raise UserError("the LoRA changes weights that Lite keeps in another form, which takes its converter: "
                                "say --engine bridge")
            for graph in graphs:
                pieces = pieces_for_lite(self._models[graph.mindir], self._models[graph.lite])
                for piece, path in zip(pieces, graph.ms, strict=True):
                    writer.start(piece, folder / path)
            writer.finish()


def _module_of(tensor: str) -> str:
    match = PRODUCT.fullmatch(tensor)
    return match["module"] if match else tensor.removesuffix(WEIGHT)


def _as_stored(tensor: str, delta: np.ndarray) -> np.ndarray:
    """What is added to a tensor of the bundle, from what is added to its module's weight: both are linear."""
    if match := PRODUCT.fullmatch(tensor):
        return winograd.products(COMBINATIONS[match["kind"]], int(match["column"]))(delta)
    return channels_last(delta)


def _places_of(model: ModelProto) -> set[Place]:
    return {Place(parameter.external_data.location, parameter.external_data.offset) for parameter in model.graph.parameter}


def _link(base: Bundle, folder: Path, replaced: set[str]) -> set[str]:
    """Put all files of a bundle but `replaced` into `folder`; their names. They are links where the file system can do that."""
    copied = 0
    for name in base.manifest.files.keys() - replaced:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(base.path / name, place)
        except OSError:
            copied += shutil.copyfile(base.file(name), place).stat().st_size
    for name in replaced:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if copied:
        warnings.warn(f"{copied / 1e6:,.1f} MB were copied: {folder.parent} and {base.path} cannot share files", stacklevel=3)
    return set(base.manifest.files) - replaced


def _source(base: Bundle, adapters: Sequence[Adapter], graphs: Sequence[GraphInfo]) -> dict[str, str]:
    names = ", ".join(dict.fromkeys(graph.name for graph in graphs))
    loras = "; ".join(filter(None, (base.manifest.source.get(RECORD), record(adapters))))
    sealed = (f"examples of {names} computed in float64 from the merged weights; others are those of the bundle that was merged "
              f"(manifest sha256 {sha256_of(base.path / FILE_NAME)})")
    return {**base.manifest.source, RECORD: loras, SEALED: sealed}


def _files(folder: Path, old: Manifest, kept: set[str]) -> dict[str, FileInfo]:
    """What the manifest says of the files. What is shared is as it was, but for what a conversion has added to."""
    found = {}
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        known = old.files.get(name) if name in kept else None
        size = (folder / name).stat().st_size
        if name != FILE_NAME and not name.startswith("."):
            found[name] = known if known and known.size == size else FileInfo(size, sha256_of(folder / name))
    return found

