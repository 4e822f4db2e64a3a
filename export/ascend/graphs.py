"""The graphs for Ascend of a bundle whose graphs for the CPU are written and sealed, over the same weight files."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ...models.targets.native import Float32Outputs
from ...runner.bundle import mindir_archive
from ...runner.bundle.manifest import Manifest
from ...runner.bundle.mindir_archive import TargetGraph
from ...runner.bundle.ms_layout import WEIGHTS
from ...runner.bundle.opened import Bundle
from ...runner.bundle.sealed_examples import SealedExample, file_name
from ..draft import Draft
from ..graphs.graph_specs import GraphSpec
from ..graphs.mindir import compile_graph, give_back_memory
from ..graphs.reader import read_model
from ..isolation import isolated
from .converter import configuration
from .precision import peaks, set_float16


def add_graphs(folder: Path, manifest: Manifest, specs: Sequence[GraphSpec], progress: bool) -> tuple[TargetGraph, ...]:
    """Write the graphs of `specs` for Ascend into the unfinished bundle `folder`; returns what its manifest says of them.

    manifest: of the graphs for the CPU, which lie in the folder with their weights and sealed examples. Each part's come in
    an archive of their own, with the converter's configurations; what an interrupted run left of them goes.
    """
    graphs: list[TargetGraph] = []
    with tqdm(total=len(specs), desc="for Ascend", disable=None if progress else True, leave=False) as bar:
        for part in dict.fromkeys(spec.part for spec in specs):
            of_part = [spec for spec in specs if spec.part == part]
            for graph in isolated(_write_part(Draft(folder, manifest), part, of_part)):
                graphs.append(graph)
                bar.set_postfix_str(graph.name)
                bar.update()
    return tuple(graphs)


def _write_part(bundle: Bundle, part: str, specs: Sequence[GraphSpec]) -> Generator[TargetGraph, None, None]:
    folder = bundle.path / part
    for path in _written(folder):
        path.unlink()
    for spec in specs:
        yield _write_graph(bundle, spec)
        give_back_memory()
    mindir_archive.pack(folder, mindir_archive.ASCEND_NAME, list(_written(folder)))


def _written(folder: Path) -> Iterator[Path]:
    yield from sorted([*folder.glob(f"*{mindir_archive.ASCEND}.mindir"), *folder.glob(f"*{mindir_archive.ASCEND}.cfg")])


def _write_graph(bundle: Bundle, spec: GraphSpec) -> TargetGraph:
    graph, folder = bundle.manifest.find(spec.name, spec.batch, spec.size), bundle.path / spec.part
    example, index = SealedExample.read(bundle.path / file_name(graph)), bundle.places(spec.part)
    cell = spec.cell_for("ascend")
    wide = set_float16(cell, peaks(read_model(bundle.mindir(graph.mindir), graph.mindir), folder, example.inputs))
    inputs = [(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]
    model = compile_graph(Float32Outputs(cell), inputs, spec.outputs, index, WEIGHTS)
    mindir, config = (f"{spec.stem}{mindir_archive.ASCEND}.{ending}" for ending in ("mindir", "cfg"))
    (bundle.path / mindir).write_bytes(model.SerializeToString())
    (bundle.path / config).write_text(configuration(spec.inputs), encoding="utf-8")
    return TargetGraph(spec.name, spec.batch, spec.size, mindir, config, tuple(wide))
