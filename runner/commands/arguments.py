"""Arguments that several subcommands share, and how they become pictures on disk."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from pathlib import Path

from ..errors import UserError
from ..memory import peak_memory


def size(text: str) -> tuple[int, int]:
    """"HxW" in pixels."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not match or 0 in (int(match[1]), int(match[2])):
        raise argparse.ArgumentTypeError(f"size {text!r} is not HEIGHTxWIDTH, for example 512x768")
    return int(match[1]), int(match[2])


def add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling (defaults travel in the bundle)")
    group.add_argument("--steps", type=int, metavar="N", help="denoising steps of the decoder")
    group.add_argument("--prior-steps", type=int, metavar="N", help="denoising steps of the prior")
    group.add_argument("--guidance-scale", type=float, metavar="X", help="guidance of the decoder; 1 switches it off")
    group.add_argument("--prior-guidance-scale", type=float, metavar="X", help="guidance of the prior")
    group.add_argument("--scheduler", metavar="NAME", help="sampler of the decoder instead of the checkpoint's own")
    group.add_argument("--images", type=int, default=1, metavar="N", help="pictures of each prompt (default 1)")
    group.add_argument("--seed", type=int, metavar="N", help="seed of the noise; without it every run differs")
    group.add_argument("--size", type=size, metavar="HxW", help="pixels, one of the bundle's sizes")


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, default=Path(default), metavar="FILE",
                       help=f"picture file, its ending gives the format (default {default}); several are numbered")
    group.add_argument("--grid", action="store_true", help="put all pictures into one file")
    group.add_argument("--quiet", action="store_true", help="no progress bars")


def add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument("--engine", choices=("auto", "bridge", "vendor"), default="auto",
                       help="bridge: Lite's C++ libraries, fetched when first needed; vendor: the mindspore_lite package")
    group.add_argument("--device", choices=("cpu", "ascend"), default="cpu", help="where graphs run (default cpu)")
    group.add_argument("--threads", type=int, metavar="N", help="threads of the engine")
    group.add_argument("--keep-loaded", action="store_true", default=None, help="keep all models in memory between stages")


def open_pipeline(args: argparse.Namespace):
    """The combined pipeline of ``args.bundle`` with the engine, scheduler and progress options of the command line."""
    from .. import schedulers
    from ..pipelines import KandinskyV22CombinedPipeline

    pipeline = KandinskyV22CombinedPipeline.from_pretrained(
        args.bundle, engine=args.engine, device=args.device, threads=args.threads, keep_loaded=args.keep_loaded
    )
    if args.scheduler:
        decoder = pipeline.decoder_pipe
        decoder.scheduler = schedulers.create_by_name(args.scheduler, pipeline.bundle.manifest.schedulers["decoder"])
    pipeline.set_progress_bar_config(disable=args.quiet or None)
    return pipeline


def decoder_options(args: argparse.Namespace) -> dict:
    height, width = args.size or (None, None)
    return {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "height": height,
        "width": width,
    }


def check_output(path: Path) -> None:
    """UserError before any work is done if a picture could not be written to `path`."""
    from ..images import WRITE_FORMATS

    if path.suffix.lower() not in WRITE_FORMATS:
        raise UserError(f"{path} ends in no known picture format: use one of {', '.join(WRITE_FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist: make it, or choose another --output")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"the folder {path.parent} is not writable: choose another --output")
    if path.is_dir():
        raise UserError(f"{path} is a folder: choose another --output")


def write_pictures(pictures: list, args: argparse.Namespace, started: float) -> None:
    """Save `pictures` where ``--output`` and ``--grid`` say, print the paths, then time and peak memory."""
    from ..images import make_image_grid, save_image

    path = args.output
    if args.grid and len(pictures) > 1:
        rows = max(n for n in range(1, math.isqrt(len(pictures)) + 1) if len(pictures) % n == 0)
        pictures = [make_image_grid(pictures, rows=rows, cols=len(pictures) // rows)]
    numbered = [path] if len(pictures) == 1 else [
        path.with_name(f"{path.stem}-{i + 1:0{len(str(len(pictures)))}}{path.suffix}") for i in range(len(pictures))
    ]
    for picture, name in zip(pictures, numbered):
        save_image(picture, name)
        print(name)
    print(f"{time.monotonic() - started:.1f} s, peak memory {peak_memory() / 2**30:.2f} GiB", file=sys.stderr)
