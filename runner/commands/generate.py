"""Make pictures from prompts.

  kandinsky-mindir generate BUNDLE "a red cat, 4k photo" --seed 7 --output cat.png
  kandinsky-mindir generate BUNDLE "a cat" "a dog" --images 4 --grid --output pets.png
  kandinsky-mindir generate BUNDLE "a red cat" --image sketch.png --strength 0.6     from a picture
  kandinsky-mindir generate BUNDLE "a red cat" --size 768x768 --memory 12GB --plan        what memory it would need
  kandinsky-mindir generate --like cat.png --output again.png              the same picture, from its own recipe
  kandinsky-mindir generate --like cat.png --scheduler dpmpp-2m --steps 20 --output faster.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments

if TYPE_CHECKING:
    from ..request import Request

TASK = "text2image"
HELP = "make pictures from prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bundle = parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    prompt = parser.add_argument("prompt", nargs="+", metavar="PROMPT", help="what to draw, in words")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")
    arguments.add_like(parser, bundle, prompt)
    arguments.add_pictures(parser, "--image")
    arguments.add_sampling(parser)
    arguments.add_output(parser, "picture.png")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    from .making import pictures

    pictures.make(args, TASK, request)


def request(args: argparse.Namespace, like: Request | None) -> Request:
    """What the command line asks for; what it leaves open is as in `like`, if that is given."""
    from ..request import Request

    fields = {**arguments.sampling_fields(args), **arguments.picture_fields(args)}
    if args.prompt:
        fields["prompt"] = tuple(args.prompt)
    negative = args.negative_prompt
    if negative is None and like is not None and like.negative_prompt is not None:
        negative = like.negative_prompt[0]
    if negative is not None:
        prompts = args.prompt or (like.prompt if like is not None else ())
        fields["negative_prompt"] = (negative,) * len(prompts)
    return like.replace(**fields) if like else Request(task=TASK, **fields)
