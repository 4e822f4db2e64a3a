"""Make pictures from a weighted mix of texts and pictures, in any number and order.

  kandinsky-mindir interpolate BUNDLE --text "a cat" 0.3 --image starry_night.png 0.7
  kandinsky-mindir interpolate BUNDLE --text "a red heart" 0.5 --text "a blue heart" 0.5 --images 4 --grid

Weights need not add to 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .. import noise
from ..errors import UserError
from . import arguments

HELP = "make pictures from a weighted mix of texts and pictures"


class Item(argparse.Action):
    """Appends (kind, value, weight), so that texts and pictures keep the order of the command line."""

    def __call__(self, parser, namespace, values, option_string=None):
        value, weight = values
        try:
            weight = float(weight)
        except ValueError:
            raise argparse.ArgumentError(self, f"the weight {weight!r} is not a number") from None
        items = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*items, (option_string, value, weight)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    for option, metavar, text in (
        ("--text", ("TEXT", "WEIGHT"), "a text and its weight"),
        ("--image", ("FILE", "WEIGHT"), "a picture (file or URL) and its weight"),
    ):
        parser.add_argument(option, nargs=2, action=Item, dest="items", metavar=metavar, help=text)
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what the decoder keeps away from")
    parser.add_argument("--negative-prior-prompt", metavar="TEXT", help="what the prior keeps away from")
    arguments.add_sampling(parser)
    arguments.add_output(parser, "mix.png")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    started = time.monotonic()
    if not args.items:
        raise UserError("nothing to mix: give at least one --text TEXT WEIGHT or --image FILE WEIGHT")
    arguments.check_output(args.output)
    from ..images import load_image

    mix = [load_image(value) if kind == "--image" else value for kind, value, _ in args.items]
    pipeline = arguments.open_pipeline(args)
    pipeline.decoder_pipe.check(**arguments.decoder_options(args))  # before the prior's work, not after it
    source = noise.source(args.seed)
    embeds = pipeline.prior_pipe.interpolate(
        mix,
        [weight for _, _, weight in args.items],
        num_images_per_prompt=args.images,
        num_inference_steps=args.prior_steps,
        guidance_scale=args.prior_guidance_scale,
        negative_prompt=args.negative_prompt,
        negative_prior_prompt=args.negative_prior_prompt,
        generator=source,
    )
    pictures = pipeline.decoder_pipe(*embeds, generator=source, **arguments.decoder_options(args)).images
    arguments.write_pictures(pictures, args, started)
