"""Make pictures from a weighted mix of texts and pictures, in any number and order.

  kandinsky-mindir interpolate BUNDLE --text "a cat" 0.3 --image starry_night.png 0.7
  kandinsky-mindir interpolate BUNDLE --text "a red heart" 0.5 --text "a blue heart" 0.5 --images 4 --grid
  kandinsky-mindir interpolate --like mix.png --output again.png           the same picture, from its own recipe

Weights need not add to 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import UserError
from . import arguments

if TYPE_CHECKING:
    from ..request import Request

TASK = "interpolate"
HELP = "make pictures from a weighted mix of texts and pictures"


class Item(argparse.Action):
    """Appends (kind, value, weight), the kind from `const`: texts and pictures keep the order of the command line."""

    def __call__(self, parser, namespace, values, option_string=None):
        value, weight = values
        try:
            weight = float(weight)
        except ValueError:
            raise argparse.ArgumentError(self, f"the weight {weight!r} is not a number") from None
        items = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*items, (self.const, value, weight)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bundle = parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    for kind, metavar, text in (
        ("text", ("TEXT", "WEIGHT"), "a text and its weight"),
        ("image", ("FILE", "WEIGHT"), "a picture (file or URL) and its weight"),
    ):
        parser.add_argument(f"--{kind}", nargs=2, action=Item, const=kind, dest="items", metavar=metavar, help=text)
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what the decoder keeps away from")
    parser.add_argument("--negative-prior-prompt", metavar="TEXT", help="what the prior keeps away from")
    arguments.add_like(parser, bundle)
    arguments.add_pictures(parser)
    arguments.add_sampling(parser)
    arguments.add_output(parser, "mix.png")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    from .making import pictures

    if not args.items and not args.like:
        raise UserError("nothing to mix: give at least one --text TEXT WEIGHT or --image FILE WEIGHT")
    pictures.make(args, TASK, request)


def request(args: argparse.Namespace, like: Request | None) -> Request:
    """What the command line asks for; what it leaves open is as in `like`, if that is given."""
    from ..pictures.provenance import as_text
    from ..request import Item, Request

    fields = {**arguments.sampling_fields(args), **arguments.picture_fields(args)}
    if args.items:
        fields["items"] = tuple(
            Item(weight=weight, **{kind: value if kind == "text" else as_text(value)}) for kind, value, weight in args.items
        )
    if args.negative_prompt is not None:
        fields["negative_prompt"] = (args.negative_prompt,)
    if args.negative_prior_prompt is not None:
        fields["negative_prior_prompt"] = args.negative_prior_prompt
    return like.replace(**fields) if like else Request(task=TASK, **fields)
