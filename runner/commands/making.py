"""From the arguments of generate and interpolate to pictures on disk, each with its recipe."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from .. import schedulers
from ..bundle.checked_files import sha256_of
from ..bundle.manifest import FILE_NAME
from ..common.errors import UserError
from ..common.memory import PeakMemory, as_text, available
from ..common.one_line import one_line
from ..common.options import as_count, as_size
from ..diffusion import noise
from ..diffusion.guidance import Guidance
from ..loading.memory_plan import text_to_picture
from ..pictures import trust
from ..pictures.delivery import Delivery
from ..pictures.fetch import is_url
from ..pictures.format_1 import OPTIONS
from ..pictures.provenance import Recipe
from ..pictures.saving import format_of
from ..pipelines import KandinskyV22CombinedPipeline
from ..request import MOST_IMAGES
from ..upkeep.replay import require_right, verify

SEED_BITS = 32  # of a seed that nobody gave: what every kind of generator takes


def open_pipeline(args: argparse.Namespace) -> KandinskyV22CombinedPipeline:
    """The combined pipeline of ``args.bundle``.

    What the command line leaves open in `args` is filled in from the recipe of ``--like``, then from the defaults.
    """
    format_of(args.output)
    recipe = Recipe.read(args.like) if args.like else None
    if recipe:
        _follow(recipe, args)
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(
        args.bundle, engine=args.engine, device=args.device, threads=args.threads, keep_loaded=args.keep_loaded,
        memory=args.memory, check=args.check,
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


def write_pictures(pictures: Iterable[Image.Image], args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline) -> None:
    """Save each of `pictures` where ``--output`` and ``--grid`` say, when it is made, and print its path."""
    delivery = _delivery(args)
    recipe = _recipe(args, pipeline)

    def text(row: int | None) -> dict[str, str]:
        return (recipe if row is None else recipe.picture(row, delivery.count)).text()

    for path in delivery.write(pictures, text):
        print(one_line(path, keep_bytes=True), flush=True)


def print_cost(started: float, memory: PeakMemory) -> None:
    """Print the time since `started`, and the peak of memory."""
    print(f"{time.monotonic() - started:.1f} s, peak memory {as_text(memory.peak)}", file=sys.stderr)


def _delivery(args: argparse.Namespace) -> Delivery:
    count = args.images * len(getattr(args, "prompt", [""]))
    return Delivery(args.output, count, bool(args.grid), tuple(args.size))


def check(args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline) -> None:
    """UserError before any work is done if the pictures could not be made or written."""
    as_count(args.images, "num_images_per_prompt", MOST_IMAGES)
    size = pipeline.decoder_pipe.check(**decoder_options(args)).size
    inputs = [Path(item["image"]) for item in getattr(args, "items", ()) if "image" in item and not is_url(item["image"])]
    replace(_delivery(args), size=size).check([*inputs, *([args.like] if args.like else [])])


def _follow(recipe: Recipe, args: argparse.Namespace) -> None:
    if recipe.command != args.command:
        raise UserError(f"{args.like} was made by {recipe.command}: use kandinsky-mindir {recipe.command} --like")
    doubts = []
    if args.bundle is None:
        found = trust.bundle(recipe.bundle, recipe.bundle_beside, recipe.bundle_sha256, args.like)
        args.bundle = Path(found.name)
        doubts.append(found.doubt)
    options = dict(recipe.options)
    if "items" in options and args.items is None:
        args.items = []
        for item in options["items"]:
            if "image" in item:
                found = trust.mixed_picture(item["image"], item.get("beside"), item.get("sha256"), args.like)
                item = {**item, "image": found.name}
                doubts.append(found.doubt)
            args.items.append(item)
    _require_trust([doubt for doubt in doubts if doubt], args)
    _fill(args, options)
    if args.images == 1 and len(getattr(args, "prompt", [""])) == 1:  # else it is another batch
        args.row, args.rows = recipe.row, recipe.rows


def _require_trust(doubts: list[str], args: argparse.Namespace) -> None:
    """UserError if the user does not want to open what the recipe names."""
    if not doubts or args.trust_recipe:
        return
    what = f"{args.like} has a recipe that names what should not be opened unseen: {'; '.join(doubts)}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{what}: give others in their place, or --trust-recipe if you trust who made it")
    print(f"{one_line(what)}. Open it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(f"{args.like} was not made again: its recipe is not trusted")


def _fill(args: argparse.Namespace, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _sha256(pipeline: KandinskyV22CombinedPipeline) -> str:
    return sha256_of(pipeline.bundle.path / FILE_NAME)


def _recipe(args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline) -> Recipe:
    scheduler, engine = pipeline.scheduler, pipeline.models.engine
    args.scheduler = {"_class_name": type(scheduler).__name__, **scheduler.config}
    options = {name: getattr(args, name) for name in OPTIONS[args.command].__struct_fields__}
    if "items" in options:
        options["items"] = [_recorded(item, args.output) for item in options["items"]]
    return Recipe(
        args.command,
        {name: value for name, value in options.items() if value is not None},
        str(args.bundle),
        _sha256(pipeline),
        args.row,
        args.rows,
        {**{name: version(name) for name in ("kandinsky-mindir", "numpy")}, f"lite {engine.name}": engine.version},
        bundle_beside=trust.relative_to_picture(args.bundle, args.output),
    )


def _recorded(item: dict[str, Any], output: Path) -> dict[str, Any]:
    if "image" not in item or trust.is_remote(item["image"]):
        return item
    return {**item, "beside": trust.relative_to_picture(Path(item["image"]), output)}
