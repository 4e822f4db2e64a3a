"""From two checkpoint folders to a bundle: weights, graphs, constants, tokenizer and manifest, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..runner import engine as engines
from ..runner import mindir_archive, schedulers
from ..runner.bundle import Bundle, sha256_of
from ..runner.component import Components
from ..runner.errors import UserError
from ..runner.manifest import FILE_NAME, FileInfo, GraphInfo, Manifest, TensorInfo
from ..runner.ms_file import WEIGHTS
from ..runner.preprocessing import ImageProcessor
from ..runner.tokens import Tokenizer
from ..runner.verify import require_right, verify
from .checkpoint import Checkpoint
from .constants import step_independent
from .golden import seal
from .graphs import GraphSpec, Size, movq_scale_factor, plan
from .lowering import lower
from .mindir import compile_graph, output_tensors, weight_bytes
from .ms_files import LARGEST_WEIGHTS, MsWriter, WeightStore
from .staging import check_target, staged_folder
from .tensor_names import resolve
from .weights import WeightsWriter

PARTS = {"text_encoder": "prior", "image_encoder": "prior", "prior": "prior", "unet": "decoder", "movq": "decoder"}


def export_bundle(
    prior: str | Path,
    decoder: str | Path,
    output: str | Path,
    sizes: Sequence[Size] | None = None,
    *,
    image_encoder: bool = True,
    overwrite: bool = False,
    engine: str = "auto",
    progress: bool = True,
) -> Path:
    """Export a checkpoint to the bundle `output`; returns its path.

    prior, decoder: folders in the diffusers layout. sizes: (height, width) in pixels; None for the checkpoint's own.
    image_encoder: False leaves it out: the bundle makes pictures from texts, not from pictures. overwrite: replace a
    bundle that is there. engine: runs the graphs that give the checkpoint's constants. UserError for whatever cannot
    be exported, and for a bundle whose graphs do not compute what they should on this machine; nothing is left behind
    then.
    """
    check_target(Path(output), overwrite)
    checkpoints = {"prior": Checkpoint(prior, "prior"), "decoder": Checkpoint(decoder, "decoder")}
    configs = {part: checkpoints[kind].config(part) for part, kind in PARTS.items()}
    defaults = {kind: dict(checkpoint.generation_defaults) for kind, checkpoint in checkpoints.items()}
    sizes = list(dict.fromkeys(sizes or [(defaults["decoder"]["height"], defaults["decoder"]["width"])]))
    if (defaults["decoder"]["height"], defaults["decoder"]["width"]) not in sizes:
        defaults["decoder"]["height"], defaults["decoder"]["width"] = sizes[0]
    specs = plan(configs, sizes)
    for checkpoint in checkpoints.values():
        schedulers.create(checkpoint.scheduler)
    _check_pictures(ImageProcessor(checkpoints["prior"].image_processor), configs["image_encoder"].image_size)
    tokenizer_file = checkpoints["prior"].tokenizer
    tokenizer_options = {
        "max_length": configs["text_encoder"].max_position_embeddings,
        "pad_token_id": tokenizer_file.pad_token_id,
        "eos_token_id": configs["text_encoder"].eos_token_id,
    }
    parts = _parts(specs, checkpoints)
    lite = engines.create(engine)

    with staged_folder(Path(output), overwrite) as folder:
        (folder / "tokenizer.json").write_text(tokenizer_file.json, encoding="utf-8")
        tokenizer = Tokenizer(folder / "tokenizer.json", **tokenizer_options)
        with MsWriter(lite) as ms_writer:
            graphs = list(_graphs(folder, parts, ms_writer, progress))
            constants = step_independent(
                lite,
                folder,
                {graph.name: graph for graph in graphs},
                tokenizer,
                checkpoints["prior"].tensors("prior"),
            )
            ms_writer.finish()
        np.savez(folder / "constants.npz", **constants)
        if not image_encoder:
            shutil.rmtree(folder / "image_encoder")
            graphs = [graph for graph in graphs if graph.part != "image_encoder"]
        settings = _settings(configs)
        seal(folder, graphs, tokenizer, constants, settings, progress)
        for part in {graph.part for graph in graphs}:
            mindir_archive.pack(folder / part)
        manifest = Manifest(
            sizes=tuple(sizes),
            graphs=tuple(graphs),
            files=_files(folder),
            settings=settings,
            schedulers={kind: checkpoint.scheduler for kind, checkpoint in checkpoints.items()},
            tokenizer=tokenizer_options,
            image_processor=checkpoints["prior"].image_processor if image_encoder else None,
            defaults=defaults,
            source={kind: checkpoint.path.resolve().name for kind, checkpoint in checkpoints.items()},
            versions={name: version(name) for name in ("kandinsky-mindir", "mindspore")},
        )
        (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
        require_right(verify(Components(Bundle(folder), lite, keep_loaded=False), files=False))
    return Path(output)


class Part(NamedTuple):
    """A part's graphs as cells, and its weights, (name, array), each read when its turn comes."""

    cells: list[tuple[GraphSpec, Any]]
    weights: Iterator[tuple[str, np.ndarray]]


def _parts(specs: list[GraphSpec], checkpoints: dict[str, Checkpoint]) -> dict[str, Part]:
    """The parts, all tensors matched to the cells' parameters: before the first is compiled, which may take minutes."""
    parts = {}
    for part, kind in PARTS.items():
        cells = [(spec, spec.cell()) for spec in specs if spec.part == part]
        shapes = {parameter.name: parameter.shape for _, cell in cells for parameter in cell.get_parameters()}
        parts[part] = Part(cells, resolve(part, shapes, checkpoints[kind].tensors(part)))
    return parts


def _check_pictures(processor: ImageProcessor, side: int) -> None:
    if processor.output_size != (side, side):
        made = "{}x{} pixels".format(*processor.output_size) if processor.output_size else "no fixed size"
        raise UserError(f"the image processor makes pictures of {made} and the image_encoder takes {side}x{side}: "
                        "these do not belong together")


def _graphs(folder: Path, parts: dict[str, Part], ms_writer: MsWriter, progress: bool) -> Iterator[GraphInfo]:
    """Write the weights of each part once, then its graphs; yields what the manifest says of each."""
    total = sum(1 + len(part.cells) for part in parts.values())
    with tqdm(total=total, desc="export", disable=None if progress else True, leave=False) as bar:
        for part in list(parts):
            cells, weights = parts.pop(part)  # done with at the end of the turn
            bar.set_postfix_str(f"{part} weights")
            index = _write_weights(folder / part, weights)
            bar.update()
            store = WeightStore(folder / part, index)
            for spec, cell in cells:
                bar.set_postfix_str(f"{spec.name} batch {spec.batch}")
                yield _write_graph(folder, spec, cell, index, store, ms_writer)
                bar.update()


def _write_weights(folder: Path, weights: Iterator[tuple[str, np.ndarray]]):
    folder.mkdir()
    with WeightsWriter(folder / WEIGHTS) as writer:
        for name, array in weights:
            writer.write(name, array)
    return writer.index


def _write_graph(folder: Path, spec: GraphSpec, cell, index, store: WeightStore, ms_writer: MsWriter) -> GraphInfo:
    """The graph as MindSpore wrote it, lowered for Lite, and in Lite's own format, all over the part's weight file."""
    inputs = [(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]
    model = compile_graph(cell, inputs, spec.outputs, index, WEIGHTS)
    mindir, lite = f"{spec.stem}.mindir", f"{spec.stem}.lite.mindir"
    (folder / mindir).write_bytes(model.SerializeToString())
    (folder / lite).write_bytes(lower(model).SerializeToString())
    lowered = [folder / lite] if weight_bytes(model) <= LARGEST_WEIGHTS else _write_pieces(folder, spec, index)
    recipes = [path.with_name(path.name.replace(".lite.mindir", ".ms.recipe")) for path in lowered]
    if ms_writer.possible:
        for path, recipe in zip(lowered, recipes):
            ms_writer.start(path, store, recipe)
    return GraphInfo(
        name=spec.name,
        part=spec.part,
        batch=spec.batch,
        size=spec.size,
        mindir=mindir,
        lite=lite,
        ms=tuple(recipe.relative_to(folder).as_posix() for recipe in recipes) if ms_writer.possible else (),
        inputs=spec.inputs,
        outputs=tuple(
            TensorInfo(name, tuple(tensor.dims), "float32")
            for name, tensor in zip(spec.outputs, output_tensors(model), strict=True)
        ),
    )


def _write_pieces(folder: Path, spec: GraphSpec, index) -> list[Path]:
    """The graph in lowered pieces, none too large for Lite's own format; empty if it cannot be cut so."""
    shapes = {tensor.name: (tensor.shape, tensor.dtype) for tensor in spec.inputs}
    paths = []
    for number, piece in enumerate(spec.pieces(LARGEST_WEIGHTS) if spec.pieces else ()):
        inputs = [(name, *shapes[name]) for name in piece.inputs]
        model = compile_graph(piece.cell(), inputs, piece.outputs, index, WEIGHTS)
        shapes |= {name: (tuple(tensor.dims), "float32") for name, tensor in zip(piece.outputs, output_tensors(model))}
        paths.append(folder / f"{spec.stem}.{number}.lite.mindir")
        paths[-1].write_bytes(lower(model).SerializeToString())
        if weight_bytes(model) > LARGEST_WEIGHTS:
            return []
    return paths


def _settings(configs: dict) -> dict:
    """What of the configurations the runner needs."""
    unet = configs["unet"]
    return {
        "movq_scale_factor": movq_scale_factor(configs["movq"]),
        # The prior's options are constants of diffusers' PriorTransformer: Timesteps(inner_dim, True, 0).
        "prior_time_proj": {"flip_sin_to_cos": True, "freq_shift": 0},
        "unet_time_proj": {"flip_sin_to_cos": unet.flip_sin_to_cos, "freq_shift": unet.freq_shift},
    }


def _files(folder: Path) -> dict[str, FileInfo]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileInfo(path.stat().st_size, sha256_of(path)) for path in paths}
