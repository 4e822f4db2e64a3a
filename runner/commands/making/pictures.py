"""From a request to pictures on disk, each with its provenance: what generate and interpolate share."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from PIL import Image

from ...bundle.checked_files import sha256_of
from ...bundle.manifest import FILE_NAME, GraphInfo
from ...bundle.stages import EMBED_TEXT, needed
from ...common.errors import UserError, one_line
from ...common.memory import PeakMemory, as_text, available
from ...common.options import as_size
from ...pictures import trust
from ...pictures.delivery import Delivery
from ...pictures.fetch import is_url
from ...pictures.images import load_image, pixels_sha256
from ...pictures.provenance import Provenance, as_path, versions_of
from ...pictures.provenance import as_text as path_as_text
from ...pictures.saving import format_of
from ...pipelines import KandinskyV22CombinedPipeline
from ...request import InputPicture, Item, Request
from ...upkeep.replay import require_right, verify
from .. import arguments

COMMANDS = {"text2image": "generate", "interpolate": "interpolate"}  # task -> the command that makes it
OPTIONS = {"image": "--init-image", "mask_image": "--mask", "hint": "--hint"}  # field of a request -> the option that gives it
Place = str | Path  # a picture's path, or its address


def make(args: argparse.Namespace, task: str, request_of: Callable[[argparse.Namespace, Request | None], Request]) -> None:
    """Make the pictures that the command line asks for, write each when it is made, and print its path.

    request_of: from the arguments, and the request of the picture of ``--like`` or None, to what is asked for.
    """
    started = time.monotonic()
    with PeakMemory() as memory:
        format_of(args.output)
        like = _read_like(args, task)
        request = request_of(args, like.request if like else None)
        if like and args.precision is None:
            args.precision = like.versions.get("precision", "float32")
        bundle, places, brought = _find(args, request, like)
        pipeline = open_pipeline(args, bundle)
        if like and like.bundle_sha256 != bundle_sha256(pipeline):
            warnings.warn(f"{bundle} is not the bundle that {args.like} was made with: the picture may differ", stacklevel=2)
        request = pipeline.complete(request)
        if args.plan:
            print_plan(pipeline, request)
            return
        pictures = [load_image(place) for place in places]
        opened = {name: [load_image(place) for place in found] for name, found in brought.items()}
        request = _with_pictures(request, places, pictures)
        request = request.replace(**{name: _named(brought[name], found) for name, found in opened.items()})
        delivery = _delivery(args, pipeline, request, like)
        made = pipeline.make(request, pictures=pictures, brought=opened)  # refuses what it does not make, and makes nothing yet
        inputs = [*places, *(place for found in brought.values() for place in found), args.like]
        delivery.check([place for place in inputs if place is not None and not is_url(str(place))])
        provenance = _provenance(pipeline, request, bundle, delivery)

        def text(row: int | None) -> dict[str, str]:
            alone = request if row is None else request.alone(row)
            return msgspec.structs.replace(provenance, request=alone).text()

        for path in delivery.write((picture.image for picture in made), text):
            print(one_line(path, keep_bytes=True), flush=True)
    print(f"{time.monotonic() - started:.1f} s, peak memory {as_text(memory.peak)}", file=sys.stderr)


def print_plan(pipeline: KandinskyV22CombinedPipeline, request: Request) -> None:
    """Say what memory each stage would need, and the pictures; UserError if the request would be refused."""
    left = f"{'this machine has':34} {as_text(available()):>10} left"
    try:
        plan = pipeline.check(request)[1].plan
    except UserError:  # the figures without what the pictures take, then why not
        print(pipeline.memory_plan(_graphs(pipeline, request)), left, sep="\n")
        raise
    print(plan, left, sep="\n")


def _graphs(pipeline: KandinskyV22CombinedPipeline, request: Request) -> list[GraphInfo]:
    """The graphs that a complete request runs."""
    manifest, decoder = pipeline.bundle.manifest, pipeline.decoder_of(request)
    sampling = decoder.sampling(request.num_inference_steps, 1, request.guidance_scale, request.guidance_rescale,
                                request.guidance_interval, scheduler=decoder.as_scheduler(request.scheduler),
                                strength=1.0 if request.strength is None else request.strength,
                                cache_interval=request.cache_interval)  # fmt: skip
    prior_batch = 2 if (request.prior_guidance_scale or 0.0) > 1 else 1
    pictures = [manifest.find("image_encoder")] * any(item.text is None for item in request.items)
    texts = needed(manifest, (EMBED_TEXT,), batches={"prior": (prior_batch,)})
    return [*pictures, *texts, *decoder.graphs(sampling, _size(pipeline, request))]


def _size(pipeline: KandinskyV22CombinedPipeline, request: Request) -> tuple[int, int]:
    return as_size(request.height, request.width, pipeline.bundle.manifest.settings["movq_scale_factor"])


def _read_like(args: argparse.Namespace, task: str) -> Provenance | None:
    if args.like is None:
        return None
    like = Provenance.read(args.like)
    if like.request.task != task:
        command = COMMANDS[like.request.task]
        raise UserError(f"{args.like} was made by {command}: use kandinsky-mindir {command} --like")
    return like


def _find(
    args: argparse.Namespace, request: Request, like: Provenance | None
) -> tuple[Path, list[Place], dict[str, list[Place]]]:
    """Where the bundle lies, the pictures that are mixed, and those that the request brings, by the names of its fields.
    UserError if the user does not trust what a recipe names."""
    named = []
    if args.bundle is None and like is not None:
        named.append(trust.bundle(like, args.like))
        bundle = Path(named[0].place)
    else:
        bundle = args.bundle
    mixed = [item for item in request.items if item.text is None]
    places: list[Place]
    if like is None or getattr(args, "items", None):
        places = _places(mixed)  # the command line names them all
    else:
        found = [trust.used_picture(item, like, args.like, "--text and --image") for item in mixed]
        named += found
        places = [picture.place for picture in found]
    brought: dict[str, list[Place]] = {}
    for name in request.brings:
        if like is None or getattr(args, name) is not None:
            brought[name] = _places(getattr(request, name))
            continue
        found = [trust.used_picture(picture, like, args.like, OPTIONS[name]) for picture in getattr(request, name)]
        named += found
        brought[name] = [picture.place for picture in found]
    _require_trust([found.doubt for found in named if found.doubt], args)
    return bundle, places, brought


def _places(pictures: Iterable[Item | InputPicture]) -> list[Place]:
    paths = [picture.image for picture in pictures if picture.image is not None]
    return [path if is_url(path) else as_path(path) for path in paths]


def _require_trust(doubts: Sequence[str], args: argparse.Namespace) -> None:
    if not doubts or args.trust_recipe:
        return
    what = f"{args.like} has a recipe that names what should not be opened unseen: {'; '.join(doubts)}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{what}: give others in their place, or --trust-recipe if you trust who made it")
    print(f"{one_line(what)}. Open it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(f"{args.like} was not made again: its recipe is not trusted")


def open_pipeline(args: argparse.Namespace, bundle: Path) -> KandinskyV22CombinedPipeline:
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, **arguments.engine_options(args))
    if args.verify:
        require_right(verify(pipeline.models))
    pipeline.set_progress_bar_config(disable=args.quiet or None)
    return pipeline


def _with_pictures(request: Request, places: Sequence[Place], pictures: Sequence[Image.Image]) -> Request:
    """The same, with each picture's place and the sha256 of its pixels."""
    found = iter(zip(places, pictures, strict=True))
    items = []
    for item in request.items:
        if item.text is None:
            place, picture = next(found)
            item = msgspec.structs.replace(item, image=path_as_text(place), sha256=pixels_sha256(picture))
        items.append(item)
    return request.replace(items=tuple(items)) if items else request


def _named(places: Sequence[Place], pictures: Sequence[Image.Image]) -> tuple[InputPicture, ...]:
    return tuple(InputPicture(path_as_text(place), pixels_sha256(picture)) for place, picture in zip(places, pictures))


def _delivery(args: argparse.Namespace, pipeline: KandinskyV22CombinedPipeline, request: Request,
              like: Provenance | None) -> Delivery:
    grid = args.grid if args.grid is not None else like is not None and like.grid
    return Delivery(args.output, request.count, grid and request.count > 1, _size(pipeline, request))


def _provenance(pipeline: KandinskyV22CombinedPipeline, request: Request, bundle: Path, delivery: Delivery) -> Provenance:
    pictures = [*request.items, *(picture for name in request.brings for picture in getattr(request, name))]
    named = [path_as_text(bundle), *(picture.image for picture in pictures if picture.image is not None)]
    return Provenance(
        request=request,
        bundle=named[0],
        bundle_sha256=bundle_sha256(pipeline),
        beside={name: trust.relative_to_picture(as_path(name), delivery.output) for name in named if not trust.is_remote(name)},
        grid=delivery.grid,
        versions=versions(pipeline),
    )


def versions(pipeline: KandinskyV22CombinedPipeline) -> dict[str, str]:
    """Of what takes part in making a picture."""
    engine = pipeline.models.engine
    return versions_of(engine.name, engine.version, pipeline.models.precision)


def bundle_sha256(pipeline: KandinskyV22CombinedPipeline) -> str:
    """Of the manifest of the bundle, which holds the sha256 of its other files."""
    return sha256_of(pipeline.bundle.path / FILE_NAME)
