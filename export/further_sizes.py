"""A size added to a bundle: its graphs are compiled, all else stays; the result is what one export of all sizes gives."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ..runner import engine as engines
from ..runner.bundle import mindir_archive, packed
from ..runner.bundle.checked_files import sha256_of
from ..runner.bundle.manifest import FILE_NAME, FileInfo, GraphInfo, Manifest
from ..runner.bundle.ms_layout import LITE_WEIGHTS, WEIGHTS, Layout
from ..runner.bundle.opened import Bundle
from ..runner.bundle.stages import shallow_of
from ..runner.bundle.tensor_index import STORED
from ..runner.common.errors import UserError
from ..runner.loading.models import Models
from ..runner.upkeep.replay import verify
from .bundle import CONFIGURATION, STORED_AS, check_verdicts, decoder_configuration
from .checkpoint.decoders import KINDS, by_kind, require_one_movq
from .checkpoint.folder import Checkpoint
from .checkpoint.tensor_names import Weight, weights
from .contents.ms_files import WeightStore
from .contents.seal_examples import seal
from .contents.stored_writer import type_of_part
from .draft import Draft
from .graphs.graph_specs import UNETS, GraphSpec, Size, check_size, part_specs, unets
from .isolation import isolated
from .lora.tensors import RECORD
from .origins import digest, part_origin
from .parts import PARTS, component, write_graphs, write_weights
from .room import check_room
from .staging import forget_part, note_part, noted, real, staged_folder


class _Names(NamedTuple):
    """What errors call them."""

    bundle: str | Path
    decoder: str | Path


class Part(NamedTuple):
    """A part that has graphs for each size: those to compile, as specs and cells, and its weights."""

    cells: list[tuple[GraphSpec, Any]]
    weights: Sequence[Weight]
    origin: str


def add_sizes(
    bundle: str | Path, decoder: str | Path | Sequence[str | Path], sizes: Sequence[Size], *, engine: str = "auto",
    progress: bool = True,
) -> Path:
    """Add picture sizes, (height, width) in pixels, to a bundle; returns its path.

    decoder: the folder of the checkpoint that it was made of, or of each if it has several. The bundle stays as it is until
    the new one is whole; big files are the same ones on the disk. UserError for a bundle that is damaged or has the sizes, for
    another checkpoint, and whatever export_bundle says of sizes and of graphs that compute something else than they should.
    """
    target = real(bundle)
    old = Bundle(target, use_packed=False)
    new_sizes = [size for size in dict.fromkeys(sizes) if size not in old.manifest.sizes]
    if not new_sizes:
        raise UserError(f"{bundle} has the size {' and '.join('x'.join(map(str, size)) for size in sizes)}: nothing to add")
    if old.manifest.targets:
        raise UserError(f"{bundle} has graphs for {' and '.join(old.manifest.targets)}, too: export all its sizes at once, with "
                        "--target")
    folders = [decoder] if isinstance(decoder, (str, Path)) else decoder
    if RECORD in old.manifest.source:
        raise UserError(f"{bundle} has LoRAs in its weights, which {folders[0]} does not have: export all sizes with --lora, or "
                        "add the size to the bundle that they were merged into and merge again")
    decoders = by_kind(folders)
    lacking = [KINDS[kind] for kind, unet in UNETS.items() if old.manifest.has(unet) and kind not in decoders]
    if lacking:
        raise UserError(f"{bundle} has a decoder for {' and '.join(lacking)}, too: give the folder of that checkpoint with "
                        "another --decoder")
    checkpoints = {**decoders, "movq": next(iter(decoders.values()))}
    require_one_movq(list(decoders.values()))
    configs = {part: checkpoints[kind].config(component(part)) for part, kind in PARTS.items() if kind in checkpoints}
    for size in new_sizes:
        for unet in unets(configs).values():
            check_size(size, configs["movq"], unet)
    recorded = old.manifest.source.get(CONFIGURATION)
    if recorded is None:
        raise UserError(f"{bundle} does not say how its decoder was configured: a version made it that could not add sizes; "
                        "export it again, with all sizes")
    if recorded != decoder_configuration(configs):
        raise _another(bundle, folders[0], "their configurations differ")
    lite = engines.create(engine)
    parts = {name: _match(name, configs, new_sizes, checkpoints[PARTS[name]], old.manifest) for name in configs}
    origins = {name: f"{part.origin} {lite.name} {lite.version}" for name, part in parts.items()}
    old.verify_files()

    with staged_folder(target, True, digest([sha256_of(target / FILE_NAME), origins])) as folder:
        done = {name: noted(folder, name, origins[name]) for name in parts}
        missing = {name: part for name, part in parts.items() if done[name] is None}
        check_room(folder, {name: old.weight_bytes_of(name) for name in missing}, written=0)
        for name in missing:
            forget_part(folder, name)
        _link(target, folder, list(parts), [name for name in parts if name not in missing])
        with tqdm(total=sum(2 + len(part.cells) for part in missing.values()), desc="export",
                  disable=None if progress else True, leave=False) as bar:
            for name, part in missing.items():
                names = _Names(bundle, folders[0])
                for step in isolated(_add_graphs(folder, name, part, lite, old.manifest, names, origins[name])):
                    bar.set_postfix_str(step)
                    bar.update()
        graphs = list(old.manifest.graphs)
        for name in parts:
            for graph in noted(folder, name, origins[name]) or ():
                _insert(graphs, GraphInfo.from_json(graph, name))
        manifest = replace(old.manifest, sizes=(*old.manifest.sizes, *new_sizes), graphs=tuple(graphs))
        seal(Draft(folder, manifest), progress)
        manifest = replace(manifest, files=_files(folder, old.manifest, list(parts)))
        (folder / FILE_NAME).unlink(missing_ok=True)  # a link to the old one
        (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
        new = replace(manifest, graphs=tuple(graph for graph in graphs if graph.size in new_sizes))
        check_verdicts(verify(Models(Draft(folder, new), lite, keep_loaded=False), files=False))
    return Path(bundle)


def _match(name: str, configs: dict, sizes: Sequence[Size], checkpoint: Checkpoint, manifest: Manifest) -> Part:
    """The part, with the graphs that the bundle has of other sizes: an older version may have made it, without some."""
    factor = configs["movq"].scale_factor
    latent_sizes = {size: (size[0] // factor, size[1] // factor) for size in sizes}
    specs = part_specs(name, configs[name], latent_sizes, manifest.has(shallow_of(name)))
    cells = [(spec, spec.cell()) for spec in specs if manifest.has(spec.name)]
    shapes = {parameter.name: parameter.shape for _, cell in cells for parameter in cell.get_parameters()}
    tensors = checkpoint.tensors(component(name))
    origin = part_origin([spec for spec, _ in cells], [cell for _, cell in cells], configs[name], tensors.files)
    found = weights(name, shapes, tensors)
    return Part([(spec, cell) for spec, cell in cells if spec.size], found, origin)


def _add_graphs(folder: Path, name: str, part: Part, engine: engines.Engine, manifest: Manifest, names: _Names,
                origin: str) -> Generator[str, None, None]:
    """Yields what it does before it does it; at the end the part is noted, with the graphs that are new."""
    yield f"{name} weights"
    hashed, stored = _Hashed(), f"{name}/{STORED}" in manifest.files
    choice = type_of_part(name, manifest.source[STORED_AS], part.weights) if stored else "float32"
    index = write_weights(folder / name, part.weights, choice, hashed)
    if hashed.hexdigest() != manifest.files[f"{name}/{STORED if stored else WEIGHTS}"].sha256:
        raise _another(*names, f"their weights of the {name} differ")
    store = WeightStore(folder / name, index)
    for graph in manifest.graphs:
        if graph.part == name:
            for layout in graph.ms:
                store.know(Layout.read(folder / layout))
            for mindir in (graph.mindir, graph.lite):  # to be in one archive with the new ones
                (folder / mindir).write_bytes(mindir_archive.read(folder / mindir_archive.archive_of(mindir), mindir))
    graphs = yield from write_graphs(folder, name, part.cells, index, store, engine)
    mindir_archive.pack(folder / name)
    note_part(folder, name, origin, [dataclasses.asdict(graph) for graph in graphs])


class _Hashed:
    """A file that keeps nothing of what is written but its sha256."""

    def __init__(self):
        self._sha256, self._end = hashlib.sha256(), 0

    def write(self, data) -> None:
        self._sha256.update(data)
        self._end += memoryview(data).nbytes

    def close(self) -> None:
        pass

    def tell(self) -> int:
        return self._end

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _grows(name: Path, parts: Collection[str]) -> bool:
    """Whether a file, by its name in the bundle, gets what new graphs bring."""
    return name.parts[0] in parts and name.name in (LITE_WEIGHTS, mindir_archive.NAME)


def _link(target: Path, folder: Path, parts: Collection[str], done: Collection[str]) -> None:
    """All files of a bundle in `folder`, which is to become the new one: linked, but for those that change.

    What is packed is for the old bundle alone. parts: those that get new graphs. done: of these, what has them already.
    """
    for path in sorted(target.rglob("*")):
        relative = path.relative_to(target)
        if not path.is_file() or relative.parts[0] in (packed.FOLDER, *done) or str(relative) == FILE_NAME:
            continue
        place = folder / relative
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        if _grows(relative, parts):
            shutil.copyfile(path, place)
            continue
        try:
            os.link(path, place)
        except OSError:  # a file system without links
            shutil.copyfile(path, place)


def _insert(graphs: list[GraphInfo], graph: GraphInfo) -> None:
    """Put a graph behind the last one of its name."""
    places = [place for place, other in enumerate(graphs) if other.name == graph.name]
    graphs.insert(places[-1] + 1, graph)


def _files(folder: Path, old: Manifest, parts: Collection[str]) -> dict[str, FileInfo]:
    """What the manifest says of the files; links are as they were."""
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        name = relative.as_posix()
        if path.is_file() and name != FILE_NAME and not name.startswith("."):
            known = None if _grows(relative, parts) else old.files.get(name)
            files[name] = known or FileInfo(path.stat().st_size, sha256_of(path))
    return files


def _another(bundle, decoder, why: str) -> UserError:
    return UserError(f"{decoder} is not the checkpoint that {bundle} was made of ({why}): give that one, or export all sizes")
