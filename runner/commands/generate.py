"""Make pictures from prompts.

  kandinsky-mindir generate BUNDLE "a red cat, 4k photo" --seed 7 --output cat.png
  kandinsky-mindir generate BUNDLE "a cat" "a dog" --images 4 --grid --output pets.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import arguments

HELP = "make pictures from prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("prompt", nargs="+", metavar="PROMPT", help="what to draw, in words")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")
    arguments.add_sampling(parser)
    arguments.add_output(parser, "picture.png")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    started = time.monotonic()
    arguments.check_output(args.output)
    pipeline = arguments.open_pipeline(args)
    pictures = pipeline(
        args.prompt,
        negative_prompt=None if args.negative_prompt is None else [args.negative_prompt] * len(args.prompt),
        num_images_per_prompt=args.images,
        prior_num_inference_steps=args.prior_steps,
        prior_guidance_scale=args.prior_guidance_scale,
        generator=args.seed,
        **arguments.decoder_options(args),
    ).images
    arguments.write_pictures(pictures, args, started)
