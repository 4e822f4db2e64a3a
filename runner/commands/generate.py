"""Make pictures from prompts.

  kandinsky-mindir generate BUNDLE "a red cat, 4k photo" --seed 7 --output cat.png
  kandinsky-mindir generate BUNDLE "a cat" "a dog" --images 4 --grid --output pets.png
  kandinsky-mindir generate BUNDLE "a red cat" --size 768x768 --memory 12GB --plan        what memory it would need
  kandinsky-mindir generate --like cat.png --output again.png              the same picture, from its own recipe
  kandinsky-mindir generate --like cat.png --scheduler dpmpp-2m --steps 20 --output faster.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import arguments

HELP = "make pictures from prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bundle = parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    prompt = parser.add_argument("prompt", nargs="+", metavar="PROMPT", help="what to draw, in words")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")
    arguments.add_like(parser, "generate", bundle, prompt)
    arguments.add_sampling(parser)
    arguments.add_output(parser, "picture.png")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    from ..common.memory import PeakMemory
    from . import making

    started = time.monotonic()
    with PeakMemory() as memory:
        pipeline = making.open_pipeline(args)
        if args.plan:
            return making.print_plan(args, pipeline)
        making.check(args, pipeline)
        pictures = pipeline(
            args.prompt,
            negative_prompt=None if args.negative_prompt is None else [args.negative_prompt] * len(args.prompt),
            num_images_per_prompt=args.images,
            prior_num_inference_steps=args.prior_steps,
            prior_guidance_scale=args.prior_guidance_scale,
            generator=making.noise_source(args),
            **making.decoder_options(args),
        ).images
        making.write_pictures(pictures, args, pipeline)
    making.print_cost(started, memory)
