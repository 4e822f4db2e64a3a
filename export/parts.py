"""A part of a checkpoint as a part of the bundle: its weights once, and its graphs over them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mindspore.train.mind_ir_pb2 import ModelProto
from tqdm import tqdm

from ..runner.bundle import mindir_archive
from ..runner.bundle.manifest import GraphInfo, TensorInfo
from ..runner.bundle.ms_layout import WEIGHTS
from ..runner.bundle.tensor_index import StoredTensor
from ..runner.common.errors import UserError, one_line
from ..runner.engine import Engine
from ..runner.engine.framework.mindir import output_tensors
from .checkpoint.tensor_names import Weight, weights
from .contents.ms_files import LARGE_WEIGHTS, LARGEST_WEIGHTS, MsWriter, WeightStore
from .contents.stored_writer import StoredWriter, stored_bytes, type_of_part
from .contents.weights import Sink, WeightsWriter
from .graphs.cutting import cut
from .graphs.graph_specs import GraphSpec
from .graphs.lowering import lower
from .graphs.mindir import compile_graph, give_back_memory, weight_bytes
from .isolation import isolated
from .lora.tensors import MergedTensors
from .origins import part_origin
from .staging import forget_part, note_part, noted

if TYPE_CHECKING:
    from .checkpoint.folder import Checkpoint
    from .lora.adapter import Adapter

SAID = 300  # letters of MindSpore's own words
# The checkpoint that each part comes from, a prior or one of the three kinds of decoders, all of which have the same MoVQ.
PARTS = {"text_encoder": "prior", "image_encoder": "prior", "prior": "prior", "unet": "decoder", "movq": "movq",
         "inpaint_unet": "inpaint", "controlnet_unet": "controlnet"}  # fmt: skip


class Part(NamedTuple):
    """A part's graphs as cells, and its weights, each read when its turn comes.

    origin: a digest of what decides its bytes, but for the engine. weight_bytes: of its weights, all float32. stored_as: one
    of CHOICES (contents/stored_writer.py). stored_bytes: what its weights take on disk, about.
    """

    cells: list[tuple[GraphSpec, Any]]
    weights: Sequence[Weight]
    origin: str
    weight_bytes: int
    stored_as: str
    stored_bytes: int


def component(part: str) -> str:
    """What a checkpoint calls a part."""
    return "unet" if part.endswith("_unet") else part


def match_parts(
    specs: list[GraphSpec], checkpoints: dict[str, Checkpoint], adapters: Sequence[Adapter] = (), targets: Sequence[str] = (),
    stored_as: str = "float32",
) -> dict[str, Part]:
    """The parts, all tensors matched to the cells' parameters: before the first is compiled, which may take minutes.

    adapters: what is added to their weights. targets: beside the CPU, whose cells' parameters the weights hold, too.
    stored_as: one of CHOICES.
    """
    parts = {}
    for part, kind in PARTS.items():
        if kind not in checkpoints:
            continue
        cells = [(spec, spec.cell()) for spec in specs if spec.part == part]
        all_cells = [cell for _, cell in cells] + [spec.cell_for(target) for target in targets for spec, _ in cells]
        shapes = {parameter.name: parameter.shape for cell in all_cells for parameter in cell.get_parameters()}
        tensors = MergedTensors(part, checkpoints[kind].tensors(component(part)), adapters)
        origin = part_origin([spec for spec, _ in cells], all_cells, checkpoints[kind].config(component(part)),
                             tensors.files, tensors.scales)
        weight_bytes = sum(4 * math.prod(shape) for shape in shapes.values())
        found = weights(part, shapes, tensors)
        choice = type_of_part(part, stored_as, found)
        stored = weight_bytes if choice == "float32" else stored_bytes(tensors.shapes, tensors.types, choice)
        parts[part] = Part(cells, found, f"{origin} {choice}", weight_bytes, choice, stored)
    return parts


def write_parts(folder: Path, parts: dict[str, Part], engine: Engine, progress: bool) -> Iterator[GraphInfo]:
    """Write the parts that an earlier run has not written; yields what the manifest says of each graph.

    folder: the bundle's, as staging.py makes it. engine: converts graphs to Lite's own format if it can. Each part is
    written by a process of its own, as MindSpore keeps memory of what it has compiled.
    """
    steps = {name: 2 + len(part.cells) for name, part in parts.items()}  # weights, graphs, conversions
    with tqdm(total=sum(steps.values()), desc="export", disable=None if progress else True, leave=False) as bar:
        done = 0
        for name, part in parts.items():
            graphs = made_before(folder, name, part, engine)
            if graphs is None:
                for step in isolated(_write_part(folder, name, part, engine)):
                    bar.set_postfix_str(step)
                    bar.update()
                graphs = made_before(folder, name, part, engine) or []
            done += steps[name]
            bar.update(done - bar.n)
            yield from graphs


def made_before(folder: Path, name: str, part: Part, engine: Engine) -> list[GraphInfo] | None:
    """The graphs of a part that is whole in the unfinished `folder`, and that would be made the same; else None."""
    graphs = noted(folder, name, _origin(part, engine))
    try:
        return None if graphs is None else [GraphInfo.from_json(graph, name) for graph in graphs]
    except UserError:  # noted by another version
        return None


def _origin(part: Part, engine: Engine) -> str:
    return f"{part.origin} {engine.name} {engine.version}"


def _write_part(folder: Path, name: str, part: Part, engine: Engine) -> Generator[str, None, None]:
    """Yields what it does before it does it; at the end the part is noted. Takes the cells out of `part`."""
    forget_part(folder, name)  # a run may have been interrupted in it
    (folder / name).mkdir()
    yield f"{name} weights"
    index = write_weights(folder / name, part.weights, part.stored_as)
    graphs = yield from write_graphs(folder, name, part.cells, index, WeightStore(folder / name, index), engine)
    mindir_archive.pack(folder / name)
    note_part(folder, name, _origin(part, engine), [dataclasses.asdict(graph) for graph in graphs])


def write_weights(folder: Path, found: Sequence[Weight], stored_as: str, file: Sink | None = None) -> dict[str, StoredTensor]:
    """Write the weights of the part in `folder`; where graphs find each. file: written instead of the file in the folder."""
    if stored_as == "float32":
        with WeightsWriter(folder / WEIGHTS, file) as writer:
            for weight in found:
                writer.write(weight.name, weight.array())
        return writer.index
    with StoredWriter(folder, stored_as, file) as stored:
        for weight in found:
            stored.write(weight)
    return stored.index


def write_graphs(
    folder: Path, name: str, cells: list[tuple[GraphSpec, Any]], index: dict[str, StoredTensor], store: WeightStore,
    engine: Engine,
) -> Generator[str, None, list[GraphInfo]]:
    """Write graphs over the weight file of the part `name`, which is there; yields what it does before it does it.

    Takes the cells out of `cells`. index: of the weight file. store: of the part.
    """
    graphs, large = [], sum(place.length for place in index.values()) > LARGE_WEIGHTS
    with MsWriter(engine, store) as ms_writer:
        while cells:  # a cell holds what it was compiled to
            spec, cell = cells.pop(0)
            yield f"{spec.name} batch {spec.batch}"
            graphs.append(_write_graph(folder, spec, cell, index, ms_writer))
            del cell
            give_back_memory()
            if len(graphs[-1].ms) == 1 and large:
                ms_writer.finish()  # beside the next graph's compiler it would take more than the part may
        yield f"{name} for Lite"
        ms_writer.finish()
    return graphs


def pieces_for_lite(model: ModelProto, lowered: ModelProto) -> list[ModelProto]:
    """A graph, lowered, in pieces of at most LARGEST_WEIGHTS; none if it cannot be cut so."""
    whole = weight_bytes(model) <= LARGEST_WEIGHTS
    pieces = [lowered] if whole else [lower(piece) for piece in cut(model, LARGEST_WEIGHTS)]
    return pieces if all(weight_bytes(piece) <= LARGEST_WEIGHTS for piece in pieces) else []


def _write_graph(folder: Path, spec: GraphSpec, cell, index: dict[str, StoredTensor], ms_writer: MsWriter) -> GraphInfo:
    """The graph as MindSpore wrote it, lowered for Lite, and in Lite's own format, all over the part's weight file."""
    inputs = [(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]
    try:
        model = compile_graph(cell, inputs, spec.outputs, index, WEIGHTS)
    except RuntimeError as error:  # pages of it; out of memory and a full disk are among them
        raise UserError(f"{spec.stem}: MindSpore does not compile it: {one_line(error)[:SAID]}; is there enough memory and "
                        "disk? Else report this") from None
    lowered = lower(model)
    mindir, lite = f"{spec.stem}.mindir", f"{spec.stem}.lite.mindir"
    (folder / mindir).write_bytes(model.SerializeToString())
    (folder / lite).write_bytes(lowered.SerializeToString())
    layouts: list[str] = []
    if ms_writer.possible:
        whole, pieces = weight_bytes(model) <= LARGEST_WEIGHTS, pieces_for_lite(model, lowered)
        layouts = [f"{spec.stem}{'' if whole else f'.{number}'}.ms.layout" for number in range(len(pieces))]
        for piece, layout in zip(pieces, layouts):
            ms_writer.start(piece, folder / layout)
    return GraphInfo(
        name=spec.name,
        part=spec.part,
        batch=spec.batch,
        size=spec.size,
        mindir=mindir,
        lite=lite,
        ms=tuple(layouts),
        inputs=spec.inputs,
        outputs=tuple(
            TensorInfo(name, tuple(tensor.dims), "float32")
            for name, tensor in zip(spec.outputs, output_tensors(model), strict=True)
        ),
    )
