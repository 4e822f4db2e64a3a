"""A LoRA merged into a bundle that is there: new weights for what it changes, all else shared, nothing compiled.

A part's index says of what the bytes follow that graphs find in weights.bin. Weights that change are written to a further
file, and the index names it: graphs need not change. One in which Lite's converter has put a changed weight into another form
is converted anew. Then the changed graphs are sealed and verified as an export does it: examples in float64 from the merged
weights, on the inputs that are there, held to Lite.
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
from msgspec import structs
from tqdm import tqdm

from ...models import winograd
from ...runner import engine as engines
from ...runner.bundle.checked_files import sha256_of
from ...runner.bundle.manifest import FILE_NAME, MERGED_FORMAT, FileInfo, GraphInfo, Manifest
from ...runner.bundle.ms_layout import LITE_WEIGHTS, Layout
from ...runner.bundle.opened import Bundle
from ...runner.bundle.sealed_examples import file_name, inputs_name
from ...runner.bundle.stored.wide_file import read_tensor, wide_index
from ...runner.bundle.tensor_index import NAME, OF_MERGE, STORED, WEIGHTS, StoredTensor, index_of, write_index
from ...runner.common.errors import UserError
from ...runner.loading.models import Models
from ...runner.upkeep.replay import read_example, verify
from ..bundle import check_verdicts
from ..checkpoint.tensor_names import channels_last
from ..contents.ms_files import MsWriter, WeightStore
from ..contents.seal_examples import seal_again
from ..contents.weights import WeightsWriter
from ..draft import Draft
from ..graphs.reader import read_model
from ..parts import pieces_for_lite
from ..staging import check_target, real, staged_folder
from .adapter import Adapter, Given, changed_parts
from .reached import Place, in_layout, in_mindir, twins
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
    converted: graphs that Lite's converter took anew. seconds: to write the weights; to seal and verify.
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
        shared = {name: name for name in base.manifest.files if not any(name.startswith(f"{part.name}/") for part in parts)}
        _link(base, folder, {**shared, **{new: old for part in parts for new, old in part.shared.items()}})
        converted = [title for part in parts for title in part.write(folder, lite)]
        for part in parts:
            shared |= part.shared
        graphs = [graph for part in parts for graph in part.graphs]
        written = time.monotonic()
        manifest = replace(base.manifest, format=MERGED_FORMAT, source=_source(base, adapters, graphs))
        models = {title: model for part in parts for title, model in part.models.items()}
        for graph in tqdm(graphs, desc="seal", disable=None if progress else True, leave=False):
            seal_again(folder, graph, models[graph.title], read_example(base, graph).inputs)
        manifest = replace(manifest, files=_files(folder, base.manifest, shared))
        (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
        changed = replace(manifest, graphs=tuple(
            graph for graph in manifest.graphs if graph in graphs or graph.title in converted))
        check_verdicts(verify(Models(Draft(folder, changed), lite, keep_loaded=False), files=False))
        fresh = sum(info.size for name, info in manifest.files.items() if info != base.manifest.files.get(shared.get(name, "")))
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
    """A part that LoRAs change. index: where graphs find its weights. graphs: those that change with it. changed: bytes of the
    weights that differ, float32. shared: files of the merged bundle -> those of the bundle that they are. models: of all graphs,
    by title. called: what the LoRAs call it. shapes: of the weights that they are for."""

    def __init__(self, base: Bundle, name: str, index: Mapping[str, StoredTensor], adapters: Sequence[Adapter], called: str,
                 shapes: Mapping[str, tuple[int, ...]]):
        self.name, self._base, self._index, self._adapters, self._called = name, base, index, adapters, called
        modules = {module for adapter in adapters for part, module in adapter.pairs if part == called}
        own = _weights(index)
        if wrong := sorted(module for module in modules if own.get(module) != shapes[module]):
            raise UserError(f"{base.path}: {wrong[0]} of the {name} has another shape than in the first of these decoders: "
                            "merge into one decoder")
        if any(place.file != WEIGHTS for place in index.values()):
            raise UserError(f"{base.path} was merged by an older version of kandinsky-mindir: merge its LoRAs and these into the "
                            "bundle that it was made of")
        self._tensors = {tensor: module for tensor in index if (module := _module_of(tensor)) in modules}
        for file in base.weights_of(name):
            base.file(file)
        self.changed = sum(index[tensor].length for tensor in self._tensors)
        self._changing = {Place.of(index[tensor]): index[tensor] for tensor in self._tensors}
        self.models = {graph.title: read_model(base.mindir(graph.mindir), graph.mindir)
                       for graph in base.manifest.graphs if graph.part == name}
        self._reached = {title: in_mindir(model, self._changing) for title, model in self.models.items()}
        self.graphs = [graph for graph in base.manifest.graphs if self._reached.get(graph.title)]
        examples = {file_name(graph): inputs_name(graph) for graph in self.graphs}
        renamed = {f"{name}/{WEIGHTS}": f"{name}/{STORED}", **examples}
        others = {file for file in base.manifest.files if file.startswith(f"{name}/")} - {index_of(name)} - renamed.keys()
        self.shared = {file: file for file in others} | {
            new: old for old, new in renamed.items() if old in base.manifest.files and new not in others}

    def write(self, folder: Path, engine: engines.Engine) -> list[str]:
        """Write the changed weights, the index, and layouts of graphs that Lite's converter must take anew: their titles."""
        self._write_weights(folder / self.name)
        unsure, anew = twins(self._base.path / self.name, self._index.values(), self._changing), []
        for graph in self._base.manifest.graphs:
            if graph.part == self.name and graph.ms:
                layouts = (Layout.read(self._base.file(path)) for path in graph.ms)
                reached = {place for layout in layouts for place in in_layout(layout, self._changing)}
                if reached != self._reached[graph.title] or reached & unsure:
                    anew.append(graph)
        if anew:
            self._convert(folder, anew, engine)
        return [graph.title for graph in anew]

    def _write_weights(self, folder: Path) -> None:
        """Write the changed tensors to a file of their own, and the index."""
        names = (OF_MERGE.format(number) for number in range(1, len(self._base.manifest.files) + 2))
        name = next(name for name in names if f"{self.name}/{name}" not in self._base.manifest.files)
        module, delta = "", np.zeros(())
        with WeightsWriter(folder / name, open(folder / name, "wb")) as writer:
            for tensor, owner in self._tensors.items():
                if owner != module:  # tensors of a module lie together
                    module, delta = owner, total(self._adapters, self._called, owner)
                array = read_tensor(self._base.path / self.name, self._index[tensor])
                writer.write(tensor, added(array, _as_stored(tensor, delta), tensor))
        stored = {tensor: structs.replace(place, file=STORED) if place.file == WEIGHTS else place
                  for tensor, place in self._base.tensors(self.name).items()} | writer.index
        if wide_index(stored) != dict(self._index):
            raise UserError(f"{self._base.path / index_of(self.name)} is not in the order of its file: export the bundle again")
        write_index(folder / NAME, stored)

    def _convert(self, folder: Path, graphs: Sequence[GraphInfo], engine: engines.Engine) -> None:
        anew = {path for graph in graphs for path in graph.ms}
        for path in anew:  # it is shared, and must not be written to
            (folder / path).unlink()
            del self.shared[path]
        lite_weights = f"{self.name}/{LITE_WEIGHTS}"
        if lite_weights in self.shared:  # it grows
            (folder / lite_weights).unlink()
            shutil.copyfile(self._base.file(lite_weights), folder / lite_weights)
        store = WeightStore(folder / self.name, self._index)
        for graph in self._base.manifest.graphs:
            if graph.part == self.name and graph not in graphs:
                for path in graph.ms:
                    store.know(Layout.read(folder / path))
        with MsWriter(engine, store) as writer:
            if not writer.possible:
                raise UserError("the LoRA changes weights that Lite keeps in another form, which takes its converter: "
                                "say --engine bridge")
            for graph in graphs:
                lowered = read_model(self._base.mindir(graph.lite), graph.lite)
                pieces = pieces_for_lite(self.models[graph.title], lowered)
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


def _link(base: Bundle, folder: Path, shared: Mapping[str, str]) -> None:
    """Put files of a bundle into `folder`, by their names there. They are links where the file system can do that."""
    copied = 0
    for name, old in shared.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(base.path / old, place)
        except OSError:
            copied += shutil.copyfile(base.file(old), place).stat().st_size
    if copied:
        warnings.warn(f"{copied / 1e6:,.1f} MB were copied: {folder.parent} and {base.path} cannot share files", stacklevel=3)


def _source(base: Bundle, adapters: Sequence[Adapter], graphs: Sequence[GraphInfo]) -> dict[str, str]:
    names = ", ".join(dict.fromkeys(graph.name for graph in graphs))
    loras = "; ".join(filter(None, (base.manifest.source.get(RECORD), record(adapters))))
    sealed = (f"examples of {names} computed in float64 from the merged weights; others are those of the bundle that was merged "
              f"(manifest sha256 {sha256_of(base.path / FILE_NAME)})")
    return {**base.manifest.source, RECORD: loras, SEALED: sealed}


def _files(folder: Path, old: Manifest, shared: Mapping[str, str]) -> dict[str, FileInfo]:
    """What the manifest says of the files. What is shared is as it was, but for what a conversion has added to."""
    found = {}
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        known = old.files.get(shared.get(name, ""))
        size = (folder / name).stat().st_size
        if name != FILE_NAME and not name.startswith("."):
            found[name] = known if known and known.size == size else FileInfo(size, sha256_of(folder / name))
    return found
