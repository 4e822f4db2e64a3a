"""From the arguments of generate and interpolate to pictures on disk, each with its recipe."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..diffusion import noise
from .. import schedulers
from ..bundle.checked_files import sha256_of
from ..common.errors import UserError
from ..pictures.images import WRITE_FORMATS, make_image_grid, save_image
from ..bundle.manifest import FILE_NAME
from ..common.memory import as_text, available
from ..common.options import as_size
from ..pipelines import KandinskyV22CombinedPipeline
from ..loading.memory_plan import text_to_picture
from ..pictures.provenance import OPTIONS, Recipe
from ..diffusion.guidance import Guidance
from ..upkeep.replay import require_right, verify

SEED_BITS = 32  # of a seed that nobody gave: what every kind of generator takes


def open_pipeline(args: argparse.Namespace) -> KandinskyV22CombinedPipeline:
    """The combined pipeline of ``args.bundle``.

    What the command line leaves open in `args` is filled in from the recipe of ``--like``, then from the defaults.
    """
    _check_output(args.output)
    recipe = Recipe.read(args.like) if args.like else None
    if recipe:
        _follow(recipe, args)
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(
        args.bundle, engine=args.engine, device=args.device, threads=args.threads, keep_loaded=args.keep_loaded,
        memory=args.memory,
    )  # fmt: skip
    if recipe and recipe.bundle_sha256 != _sha256(pipeline):
        warnings.warn(f"{args.bundle} is not the bundle that {args.like} was made with: the picture may differ")
    if args.verify:
        require_right(verify(pipeline.models))
    manifest = pipeline.bundle.manifest
    if args.scheduler:  # a name from the command line, or what a recipe says
        named = isinstance(args.scheduler, str)
        pipeline.scheduler = args.scheduler if named else schedulers.create(args.scheduler)
    pipeline.set_progress_bar_config(disable=args.quiet or None)
    decoder, prior = manifest.defaults["decoder"], manifest.defaults["prior"]
    _fill(args, {
        "steps": decoder["num_inference_steps"],
        "prior_steps": prior["num_inference_steps"],
        "guidance_scale": decoder["guidance_scale"],
        "prior_guidance_scale": prior["guidance_scale"],
        "guidance_rescale": 0.0,
        "guidance_interval": [0.0, 1.0],
        "images": 1,
        "seed": secrets.randbits(SEED_BITS),
        "rng": "numpy",
        "size": [decoder["height"], decoder["width"]],
        "grid": False,
    })
    return pipeline


def print_plan(args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline, pictures: bool = False) -> None:
    """Say what memory each stage would need; UserError if the request would be refused. pictures: some are mixed."""
    manifest = pipeline.bundle.manifest
    size = as_size(*args.size, manifest.settings["movq_scale_factor"])
    guidance = Guidance(args.guidance_scale, args.guidance_rescale, args.guidance_interval)
    batches = guidance.batches(len(pipeline.scheduler.schedule(args.steps).timesteps))
    prior_batch = 2 if args.prior_guidance_scale > 1 else 1
    graphs = [manifest.find("image_encoder")] * pictures + text_to_picture(manifest, size, batches, prior_batch)
    print(pipeline.memory_plan(graphs))
    print(f"{'this machine has':34} {as_text(available()):>10} left")
    pipeline.require_memory(graphs)


def noise_source(args: argparse.Namespace) -> noise.NoiseSource:
    source = noise.from_seed(args.seed, args.rng)
    return source if args.row is None else noise.OneOfBatch(source, args.row, args.rows)


def decoder_options(args: argparse.Namespace) -> dict[str, Any]:
    height, width = args.size
    return {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "guidance_rescale": args.guidance_rescale,
        "guidance_interval": args.guidance_interval,
        "height": height,
        "width": width,
    }


def write_pictures(
    pictures: list, args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline, started: float, peak: int
) -> None:
    """Save `pictures` where ``--output`` and ``--grid`` say, print the paths, then the time since `started` and the
    `peak` of memory, in bytes."""
    recipe = _recipe(args, pipeline)
    path = args.output
    if args.grid and len(pictures) > 1:
        rows = max(n for n in range(1, math.isqrt(len(pictures)) + 1) if len(pictures) % n == 0)
        pictures, recipes = [make_image_grid(pictures, rows=rows, cols=len(pictures) // rows)], [recipe]
    else:
        recipes = [recipe.picture(row, len(pictures)) for row in range(len(pictures))]
    numbered = [path] if len(pictures) == 1 else [
        path.with_name(f"{path.stem}-{i + 1:0{len(str(len(pictures)))}}{path.suffix}") for i in range(len(pictures))
    ]
    for picture, recipe, name in zip(pictures, recipes, numbered):
        save_image(picture, name, text=recipe.text() if WRITE_FORMATS[path.suffix.lower()][0] == "PNG" else None)
        print(name)
    print(f"{time.monotonic() - started:.1f} s, peak memory {as_text(peak)}", file=sys.stderr)


def _follow(recipe: Recipe, args: argparse.Namespace) -> None:
    if recipe.command != args.command:
        raise UserError(f"{args.like} was made by {recipe.command}: use kandinsky-mindir {recipe.command} --like")
    _fill(args, {**recipe.options, "bundle": Path(recipe.bundle)})
    if args.images == 1 and len(getattr(args, "prompt", [""])) == 1:  # else it is another batch
        args.row, args.rows = recipe.row, recipe.rows


def _fill(args: argparse.Namespace, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _sha256(pipeline: KandinskyV22CombinedPipeline) -> str:
    return sha256_of(pipeline.bundle.path / FILE_NAME)


def _recipe(args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline) -> Recipe:
    scheduler, engine = pipeline.scheduler, pipeline.models.engine
    args.scheduler = {"_class_name": type(scheduler).__name__, **scheduler.config}
    options = {name: getattr(args, name) for name in OPTIONS[args.command]}
    return Recipe(
        args.command,
        {name: value for name, value in options.items() if value is not None},
        str(args.bundle),
        _sha256(pipeline),
        args.row,
        args.rows,
        {**{name: version(name) for name in ("kandinsky-mindir", "numpy")}, f"lite {engine.name}": engine.version},
    )


def _check_output(path: Path) -> None:
    """UserError before any work is done if a picture could not be written to `path`."""
    if path.suffix.lower() not in WRITE_FORMATS:
        raise UserError(f"{path} ends in no known picture format: use one of {', '.join(WRITE_FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist: make it, or choose another --output")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"the folder {path.parent} is not writable: choose another --output")
    if path.is_dir():
        raise UserError(f"{path} is a folder: choose another --output")
