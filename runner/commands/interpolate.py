"""Make pictures from a weighted mix of texts and pictures, in any number and order.

  kandinsky-mindir interpolate BUNDLE --text "a cat" 0.3 --image starry_night.png 0.7
  kandinsky-mindir interpolate BUNDLE --text "a red heart" 0.5 --text "a blue heart" 0.5 --images 4 --grid
  kandinsky-mindir interpolate --like mix.png --output again.png           the same picture, from its own recipe

Weights need not add to 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from . import arguments

HELP = "make pictures from a weighted mix of texts and pictures"


class Item(argparse.Action):
    """Appends {kind (const): value, "weight": weight}: texts and pictures keep the order of the command line."""

    def __call__(self, parser, namespace, values, option_string=None):
        value, weight = values
        try:
            weight = float(weight)
        except ValueError:
            raise argparse.ArgumentError(self, f"the weight {weight!r} is not a number") from None
        items = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*items, {self.const: value, "weight": weight}])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bundle = parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    for kind, metavar, text in (
        ("text", ("TEXT", "WEIGHT"), "a text and its weight"),
        ("image", ("FILE", "WEIGHT"), "a picture (file or URL) and its weight"),
    ):
        parser.add_argument(f"--{kind}", nargs=2, action=Item, const=kind, dest="items", metavar=metavar, help=text)
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what the decoder keeps away from")
    parser.add_argument("--negative-prior-prompt", metavar="TEXT", help="what the prior keeps away from")
    arguments.add_like(parser, "interpolate", bundle)
    arguments.add_sampling(parser)
    arguments.add_output(parser, "mix.png")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    from ..common.memory import PeakMemory
    from . import making

    started = time.monotonic()
    if not args.items and not args.like:
        raise UserError("nothing to mix: give at least one --text TEXT WEIGHT or --image FILE WEIGHT")
    with PeakMemory() as memory:
        pipeline = making.open_pipeline(args)
        if args.plan:
            return making.print_plan(args, pipeline, any("image" in item for item in args.items))
        mix = [load_item(item) for item in args.items]
        making.check(args, pipeline)
        source = making.noise_source(args)
        embeds = pipeline.prior_pipe.interpolate(
            mix,
            [item["weight"] for item in args.items],
            num_images_per_prompt=args.images,
            num_inference_steps=args.prior_steps,
            guidance_scale=args.prior_guidance_scale,
            negative_prompt=args.negative_prompt or "",
            negative_prior_prompt=args.negative_prior_prompt,
            generator=source,
        )
        pictures = pipeline.decoder_pipe(*embeds, generator=source, **making.decoder_options(args)).images
        making.write_pictures(pictures, args, pipeline)
    making.print_cost(started, memory)


def load_item(item: dict[str, Any]) -> Any:
    """The text or the picture of an item; the sha256 of the pixels goes into `item`. UserError if it held another."""
    if "text" in item:
        return item["text"]
    from ..pictures.images import load_image, pixels_sha256

    picture = load_image(item["image"])
    if item.setdefault("sha256", pixels_sha256(picture)) != pixels_sha256(picture):
        raise UserError(f"{item['image']} is not the picture that was mixed: give what to mix with --text and --image")
    return picture
