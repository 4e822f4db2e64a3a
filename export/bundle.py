"""From two checkpoint folders to a bundle: weights, graphs, constants, tokenizer and manifest, whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..runner import engine as engines
from ..runner import schedulers
from ..runner.bundle.checked_files import sha256_of
from ..runner.loading.models import Models
from ..runner.common.errors import UserError
from ..runner.bundle.manifest import FILE_NAME, FileInfo, Manifest
from ..runner.inputs.preprocessing import ImageProcessor
from ..runner.inputs.tokens import Tokenizer
from ..runner.upkeep.replay import require_right, verify
from .checkpoint import KINDS, Checkpoint
from .constants import step_independent
from .draft import Draft
from .seal_examples import seal
from .graph_specs import GraphSpec, Size, plan
from .parts import PARTS, match_parts, remove_part, write_parts
from .staging import NOTES, check_target, parts_done, staged_folder

VERSIONED = ("kandinsky-mindir", "mindspore")


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
    then. Interrupted, it leaves the parts that are done for the same call to go on from.
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
        "vocab_size": configs["text_encoder"].vocab_size,
    }
    parts = match_parts(specs, checkpoints)
    lite = engines.create(engine)
    settings = _settings(configs)

    with staged_folder(Path(output), overwrite, _source(checkpoints, specs, lite)) as folder:
        if progress and (done := parts_done(folder)):
            print(f"going on from {', '.join(done)}, made before", file=sys.stderr)
        (folder / "tokenizer.json").write_text(tokenizer_file.json, encoding="utf-8")
        Tokenizer(folder / "tokenizer.json", **tokenizer_options)  # refuses one that cannot be used
        manifest = Manifest(
            sizes=tuple(sizes),
            graphs=tuple(write_parts(folder, parts, lite, progress)),
            files={},
            settings=settings,
            schedulers={kind: checkpoint.scheduler for kind, checkpoint in checkpoints.items()},
            tokenizer=tokenizer_options,
            image_processor=checkpoints["prior"].image_processor if image_encoder else None,
            defaults=defaults,
            source={kind: checkpoint.path.resolve().name for kind, checkpoint in checkpoints.items()},
            versions={name: version(name) for name in VERSIONED},
        )
        models = Models(Draft(folder, manifest), lite, keep_loaded=False)
        np.savez(folder / "constants.npz", **step_independent(models, checkpoints["prior"].tensors("prior")))
        if not image_encoder:
            manifest = replace(manifest, graphs=tuple(graph for graph in manifest.graphs if graph.part != "image_encoder"))
        seal(Draft(folder, manifest), progress)
        if not image_encoder:
            remove_part(folder, "image_encoder")
        manifest = replace(manifest, files=_files(folder))
        (folder / FILE_NAME).write_text(manifest.dump(), encoding="utf-8")
        verdicts = verify(Models(Draft(folder, manifest), lite, keep_loaded=False), files=False)
        require_right(verdicts, "the bundle is not published: report it")
    return Path(output)


def _check_pictures(processor: ImageProcessor, side: int) -> None:
    if processor.output_size != (side, side):
        made = "{}x{} pixels".format(*processor.output_size) if processor.output_size else "no fixed size"
        raise UserError(f"the image processor makes pictures of {made} and the image_encoder takes {side}x{side}: "
                        "these do not belong together")


def _source(checkpoints: dict[str, Checkpoint], specs: list[GraphSpec], lite: engines.Engine) -> str:
    """What the parts of a bundle are made of: where this is the same, parts made before are the same."""
    files = [path for kind, checkpoint in checkpoints.items() for part in KINDS[kind].parts
             for path in (checkpoint.folder(part) / "config.json", *checkpoint.tensors(part).files)]
    home = Path(__file__).parents[1]
    program = [path for folder in ("export", "models", "runner") for path in (home / folder).rglob("*.*")
               if path.suffix in (".py", ".cc", ".h")]
    return json.dumps([
        [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)],
        [sha256_of(path) for path in sorted(program)],
        [version(name) for name in VERSIONED],
        [lite.name, lite.version],
        [spec.stem for spec in specs],
    ])  # fmt: skip


def _settings(configs: dict) -> dict:
    """What of the configurations the runner needs."""
    unet = configs["unet"]
    return {
        "movq_scale_factor": configs["movq"].scale_factor,
        # The prior's options are constants of diffusers' PriorTransformer: Timesteps(inner_dim, True, 0).
        "prior_time_proj": {"flip_sin_to_cos": True, "freq_shift": 0},
        "unet_time_proj": {"flip_sin_to_cos": unet.flip_sin_to_cos, "freq_shift": unet.freq_shift},
    }


def _files(folder: Path) -> dict[str, FileInfo]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != NOTES)
    return {path.relative_to(folder).as_posix(): FileInfo(path.stat().st_size, sha256_of(path)) for path in paths}
