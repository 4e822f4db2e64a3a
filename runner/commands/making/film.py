"""From the arguments of the command film to a film on disk: what it takes from one run to the next lies beside it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from ...common.errors import UserError, one_line
from ...common.memory import PeakMemory, as_text
from ...common.options import as_size
from ...inputs.items import with_pictures
from ...pictures.animation import check_film, kind_of, write_film
from ...pictures.fetch import is_url
from ...pictures.frames import Frames, folder_of, open_frames, read_recipe
from ...pictures.images import load_image
from ...pictures.provenance import as_text as path_as_text
from ...pipelines import KandinskyV22CombinedPipeline
from ...pipelines.film import Film, film_frames
from ...request import Item
from ..arguments import sampling_fields
from .pictures import bundle_sha256, open_pipeline, print_plan, versions


def make(args: argparse.Namespace) -> None:
    """Make the film that the command line asks for, from the frames that an earlier run has left, and print its path."""
    started = time.monotonic()
    with PeakMemory() as memory:
        kind_of(args.output)
        if args.seed is None:
            args.seed = _seed_of(folder_of(args.output))
        film = _film(args)
        pipeline = open_pipeline(args, args.bundle)
        request = pipeline.complete(film.request)
        if args.plan:
            print_plan(pipeline, request)
            return
        size = as_size(request.height, request.width, pipeline.bundle.manifest.settings["movq_scale_factor"])
        paths = [value for kind, value in args.keys if kind == "image"]
        check_film(args.output, size, film.frames, args.fps, [Path(path) for path in paths if not is_url(path)])
        pictures = [load_image(path) for path in paths]
        film = msgspec.structs.replace(film, request=with_pictures(request, pictures)[0])
        film_frames(pipeline, film, pictures=pictures)  # refuses what it does not make, and makes nothing yet
        recipe = {"film": msgspec.to_builtins(film), "bundle_sha256": bundle_sha256(pipeline), "versions": versions(pipeline)}
        with open_frames(folder_of(args.output), film.frames, size, recipe) as frames:
            _write_missing(pipeline, film, pictures, frames)
            write_film(args.output, frames.paths, args.fps, json.dumps(recipe))
            if not args.keep_frames:
                frames.remove()
    print(one_line(args.output, keep_bytes=True), flush=True)
    print(f"{time.monotonic() - started:.1f} s, peak memory {as_text(memory.peak)}", file=sys.stderr)


def _film(args: argparse.Namespace) -> Film:
    """What the command line asks for; what it leaves open is not filled in yet."""
    keys = [Item(weight=1.0, **{kind: value if kind == "text" else path_as_text(value)}) for kind, value in args.keys]
    fields = sampling_fields(args)
    if args.negative_prompt is not None:
        fields["negative_prompt"] = args.negative_prompt
    return Film.of(keys, frames=args.frames, embeds=args.embeds, noise=args.noise, easing=args.easing, hold=args.hold,
                   loop=args.loop, **fields)  # fmt: skip


def _seed_of(folder: Path) -> int | None:
    """The seed of the film whose frames lie in a folder, where one was drawn for it; None where there is no film."""
    made: Any = read_recipe(folder) or {}
    for name in ("film", "request", "seed"):
        made = made.get(name) if isinstance(made, dict) else None
    return made


def _write_missing(pipeline: KandinskyV22CombinedPipeline, film: Film, pictures: list, frames: Frames) -> None:
    """Make the frames that are not there. An error or a signal in between says what is there."""
    try:
        for frame in film_frames(pipeline, film, numbers=frames.missing(), pictures=pictures):
            frames.write(frame.number, frame.image)
    except (KeyboardInterrupt, UserError) as stop:
        done = film.frames - len(frames.missing())
        kept = f"{done} of {film.frames} frames are in {frames.folder}: the same command goes on from there"
        raise type(stop)("; ".join([*map(str, stop.args), *([kept] if done else [])])) from None
