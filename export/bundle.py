"""From two checkpoint folders to a bundle: weights, graphs, constants, tokenizer and manifest, whole or not at all."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..runner import engine as engines
from ..runner import schedulers
from ..runner.bundle.checked_files import sha256_of
from ..runner.bundle.manifest import FILE_NAME, FORMAT, STORED_FORMAT, FileInfo, Manifest
from ..runner.common.errors import UserError
from ..runner.inputs.preprocessing import ImageProcessor
from ..runner.inputs.tokens import Tokenizer
from ..runner.loading.models import Models
from ..runner.upkeep.replay import Verdict, require_right, verify
from .ascend.graphs import add_graphs
from .checkpoint.decoders import by_kind, require_one_movq
from .checkpoint.folder import Checkpoint
from .contents.constants import check_statistics, step_independent
from .contents.seal_examples import seal
from .contents.stored_writer import CHECKPOINT, CHOICES
from .draft import Draft
from .graphs.graph_specs import Size, plan, unets
from .lora.adapter import Given
from .lora.spelling import PARTS as CHANGED
from .lora.tensors import RECORD, read_adapters, record
from .origins import OF_EXAMPLES, VERSIONED, digest, program
from .parts import PARTS, Part, component, made_before, match_parts, write_parts
from .room import check_room
from .staging import NOTES, WrongBundle, check_target, forget_part, staged_folder

CONFIGURATION = "decoder_configuration"  # of Manifest.source
STORED_AS = "weights"  # of Manifest.source: what was chosen of contents/stored_writer.py: CHOICES


def export_bundle(
    prior: str | Path,
    decoder: str | Path | Sequence[str | Path],
    output: str | Path,
    sizes: Sequence[Size] | None = None,
    *,
    loras: Sequence[Given] = (),
    image_encoder: bool = True,
    target: str = "cpu",
    shallow: bool = False,
    overwrite: bool = False,
    weights: str = CHECKPOINT,
    engine: str = "auto",
    progress: bool = True,
) -> Path:
    """Export a checkpoint to the bundle `output`; returns its path.

    prior, decoder: folders in the diffusers layout; decoder may be several, each of another kind: text to image, inpainting,
    depth. sizes: (height, width) in pixels; None for the checkpoint's own.
    loras: files whose products are added to the weights of the prior and the UNet. image_encoder: False leaves it out: the
    bundle makes pictures from texts, not from pictures. target: "ascend" adds the graphs for it to those for the CPU.
    shallow: with graphs of the UNets' outermost layers, which `cache_interval` of the pipelines needs.
    overwrite: replace a bundle that is there. weights: the type to store them in, or "checkpoint" for what each has there.
    engine: runs the graphs that give the checkpoint's constants. UserError for whatever cannot
    be exported, before the work where that can be known. Whatever ends it later leaves the parts that are done for the
    same call to go on from; a bundle whose graphs do not compute what they should on this machine stays as OUTPUT.failed.
    """
    if weights not in CHOICES:
        raise UserError(f"weights is {weights!r}: it must be one of {', '.join(CHOICES)}")
    check_target(Path(output), overwrite)
    decoders = by_kind([decoder] if isinstance(decoder, (str, Path)) else decoder)
    first = next(iter(decoders.values()))
    checkpoints = {"prior": Checkpoint(prior, "prior"), **decoders, "movq": first}
    require_one_movq(list(decoders.values()))
    configs = {part: checkpoints[kind].config(component(part)) for part, kind in PARTS.items() if kind in checkpoints}
    named = {"prior": checkpoints["prior"], "decoder": first, **decoders}  # what there is no text to image of, is the first's
    defaults = {kind: dict(checkpoint.generation_defaults) for kind, checkpoint in named.items()}
    sizes = list(dict.fromkeys(sizes or [(defaults["decoder"]["height"], defaults["decoder"]["width"])]))
    for kind in named.keys() - {"prior"}:
        if (defaults[kind]["height"], defaults[kind]["width"]) not in sizes:
            defaults[kind]["height"], defaults[kind]["width"] = sizes[0]
    specs = plan(configs, sizes, shallow)
    if shallow and target != "cpu":
        raise UserError(f"--shallow goes with graphs for the CPU alone: leave it out, or --target {target}")
    if loras and set(decoders) != {"decoder"}:
        raise UserError("--lora goes with the decoder for texts alone: export the other decoders to a bundle of their own")
    changed = [part for part in CHANGED if PARTS[part] in checkpoints]
    adapters = read_adapters(loras, {part: checkpoints[PARTS[part]].tensors(part) for part in changed})
    for checkpoint in checkpoints.values():
        schedulers.create(checkpoint.scheduler)
    _check_pictures(ImageProcessor(checkpoints["prior"].image_processor), configs["image_encoder"].image_size)
    check_statistics(checkpoints["prior"].tensors("prior"), configs["prior"].embedding_dim)
    tokenizer_file = checkpoints["prior"].tokenizer
    tokenizer_options = {
        "max_length": configs["text_encoder"].max_position_embeddings,
        "pad_token_id": tokenizer_file.pad_token_id,
        "eos_token_id": configs["text_encoder"].eos_token_id,
        "vocab_size": configs["text_encoder"].vocab_size,
    }
    targets = [] if target == "cpu" else [target]
    parts = match_parts(specs, checkpoints, adapters, targets, weights)
    narrow = any(part.stored_as != "float32" for part in parts.values())
    lite = engines.create(engine)
    settings = _settings(configs)

    with staged_folder(Path(output), overwrite, _source(parts, tokenizer_file.json, settings, lite)) as folder:
        if (folder / NOTES / "image_encoder").exists():
            shutil.move(folder / NOTES / "image_encoder", folder / "image_encoder")
        done = [name for name, part in parts.items() if made_before(folder, name, part, lite) is not None]
        for name in parts.keys() - done:
            forget_part(folder, name)
        if progress and done:
            print(f"going on from {', '.join(done)}, made before", file=sys.stderr)
        missing = {name: part for name, part in parts.items() if name not in done}
        check_room(folder, {name: part.weight_bytes for name, part in missing.items()},
                   sum(part.stored_bytes for part in missing.values()))
        (folder / "tokenizer.json").write_text(tokenizer_file.json, encoding="utf-8")
        Tokenizer(folder / "tokenizer.json", **tokenizer_options)  # refuses one that cannot be used
        manifest = Manifest(
            sizes=tuple(sizes),
            graphs=tuple(write_parts(folder, parts, lite, progress)),
            files={},
            settings=settings,
            schedulers={kind: checkpoint.scheduler for kind, checkpoint in named.items()},
            tokenizer=tokenizer_options,
            image_processor=checkpoints["prior"].image_processor if image_encoder else None,
            defaults=defaults,
            source={**{kind: checkpoint.path.resolve().name for kind, checkpoint in checkpoints.items() if kind != "movq"},
                    CONFIGURATION: decoder_configuration(configs), **({RECORD: record(adapters)} if adapters else {}),
                    **({STORED_AS: weights} if narrow else {})},
            format=STORED_FORMAT if narrow else FORMAT,
            versions={name: version(name) for name in VERSIONED},
        )
        models = Models(Draft(folder, manifest), lite, keep_loaded=False)
        np.savez(folder / "constants.npz", **step_independent(models, checkpoints["prior"].tensors("prior")))  # type: ignore[arg-type]
        if not image_encoder:
            manifest = replace(manifest, graphs=tuple(graph for graph in manifest.graphs if graph.part != "image_encoder"))
        seal(Draft(folder, manifest), progress)
        if targets:
            written = {(graph.name, graph.batch, graph.size) for graph in manifest.graphs}
            wanted = [spec for spec in specs if (spec.name, spec.batch, spec.size) in written]
            manifest = replace(manifest, targets={target: add_graphs(folder, manifest, wanted, progress)})
        if not image_encoder:  # which a run that failed may go on from
            shutil.move(folder / "image_encoder", folder / NOTES / "image_encoder")
        manifest = replace(manifest, files=_files(folder))
        (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
        verdicts = verify(Models(Draft(folder, manifest), lite, keep_loaded=False), files=False)
        check_verdicts(verdicts)
    return Path(output)


def _check_pictures(processor: ImageProcessor, side: int) -> None:
    if processor.output_size != (side, side):
        made = "{}x{} pixels".format(*processor.output_size) if processor.output_size else "no fixed size"
        raise UserError(f"the image processor makes pictures of {made} and the image_encoder takes {side}x{side}: "
                        "these do not belong together")


def check_verdicts(verdicts: Iterable[Verdict]) -> None:
    """WrongBundle that names the first graph that is wrong or does not run."""
    try:
        require_right(verdicts, "")
    except UserError as error:
        raise WrongBundle(f"{error}; the bundle is not published") from None


def decoder_configuration(configs: dict[str, Any]) -> str:
    """A digest of the configurations that graphs of a further size depend on."""
    return digest([repr(configs[part]) for part, kind in PARTS.items() if kind != "prior" and part in configs])[:16]


def _source(parts: dict[str, Part], tokenizer: str, settings: dict, lite: engines.Engine) -> str:
    """What the sealed examples of a bundle are made of: where this is the same, those made before are the same."""
    return digest([[part.origin for part in parts.values()], tokenizer, settings, program(OF_EXAMPLES), lite.name, lite.version])


def _settings(configs: dict) -> dict:
    """What of the configurations the runner needs."""
    found = unets(configs)
    options = {"unet": next(iter(found.values())), **found}
    return {
        "movq_scale_factor": configs["movq"].scale_factor,
        # The prior's options are constants of diffusers' PriorTransformer: Timesteps(inner_dim, True, 0).
        "prior_time_proj": {"flip_sin_to_cos": True, "freq_shift": 0},
        **{f"{part}_time_proj": {"flip_sin_to_cos": unet.flip_sin_to_cos, "freq_shift": unet.freq_shift}
           for part, unet in options.items()},
    }  # fmt: skip


def _files(folder: Path) -> dict[str, FileInfo]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if NOTES not in path.relative_to(folder).parts and path.name != FILE_NAME]
    return {path.relative_to(folder).as_posix(): FileInfo(path.stat().st_size, sha256_of(path)) for path in paths}
