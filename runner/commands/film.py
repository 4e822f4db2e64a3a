"""Make a film that goes from key to key, through texts and pictures.

  kandinsky-mindir film BUNDLE --key "a cat" --key "a dog" --frames 48 --fps 12 --output film.mp4
  kandinsky-mindir film BUNDLE --key "a cat" --key dog.png --loop --easing smoothstep --output film.webp
  kandinsky-mindir film BUNDLE --key "a cat" --noise circle --output breathing.gif

Frames are written one by one to a folder beside the film. A film that was stopped goes on from there when the same command
is run again, and gives the same bytes. With still noise, the frame at a text is the picture that generate makes of it with
the same seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import arguments

HELP = "make a film from key to key, through texts and pictures"
# What names a picture; a text that ends so can be given as text:TEXT, a picture with another name as image:FILE.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".tga", ".jp2", ".avif")
KINDS = ("text", "image")


def key(text: str) -> tuple[str, str]:
    """(kind, value) of a key: "text" or "image"."""
    from ..pictures.fetch import is_url

    kind, colon, value = text.partition(":")
    if colon and kind in KINDS:
        return kind, value
    return ("image" if is_url(text) or text.lower().endswith(PICTURES) else "text"), text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--key", type=key, action="append", required=True, dest="keys", metavar="KEY",
                        help="a text, or a picture: what ends as picture files do, or an address; text:KEY and image:KEY say "
                        "which; repeated, in the film's order")
    group = parser.add_argument_group("way")
    group.add_argument("--frames", type=int, default=48, metavar="N", help="pictures in the whole film (default 48)")
    group.add_argument("--fps", type=float, default=12, metavar="X", help="pictures a second (default 12)")
    group.add_argument("--loop", action="store_true", help="go back from the last key to the first, without a seam")
    group.add_argument("--embeds", choices=("slerp", "lerp"), default="slerp",
                       help="from key to key on an arc (default) or on a straight line")
    group.add_argument("--noise", choices=("still", "slerp", "circle"), default="still",
                       help="the same in all frames (default); each key's own, on an arc from key to key; or one round of a "
                       "circle in the whole film")
    group.add_argument("--easing", choices=("linear", "smoothstep", "cosine"), default="linear",
                       help="speed between two keys: even (default), or slow at both")
    group.add_argument("--hold", type=float, default=0.0, metavar="X",
                       help="share of the time for which the film stands at keys, from 0 (default) to below 1")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")
    arguments.add_sampling(parser, images=False)
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, default=Path("film.mp4"), metavar="FILE",
                       help="film file: .mp4 (through the program ffmpeg), .webp, .gif, .png or .apng (default film.mp4)")
    group.add_argument("--keep-frames", action="store_true", help="leave the folder FILE.frames, with each frame as a PNG")
    group.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments.add_engine(parser)


def run(args: argparse.Namespace) -> None:
    from .making import film

    film.make(args)
