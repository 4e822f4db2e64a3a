"""Lay the weights of a bundle out for this machine's processor, once: models then load faster, in less memory.

  kandinsky-mindir pack BUNDLE

MindSpore Lite brings all weights into an order of its own whenever it loads a model, in memory of its own. This does it
once and keeps the outcome in BUNDLE/packed, which takes about as much disk as the weights in the precision that it computes
in, whatever type the bundle stores them in. Loaded models then use the pages of these files: processes that run the same
bundle share them, and the system takes them back when it needs memory. Run it
on the machine that makes the pictures, with the number of threads and the precision that it makes them with: with another
processor, number or precision the bundle works as before. Each graph is checked to compute the same, bit for bit. To undo
it, remove BUNDLE/packed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import engine as engines
from ..bundle import packed
from ..bundle.opened import Bundle
from ..common.errors import one_line
from ..common.memory import as_text
from ..common.options import as_count
from ..upkeep.packing import pack
from . import arguments

HELP = "lay the weights out for this machine: models load faster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    arguments.add_threads(parser)
    arguments.add_precision(parser)


def run(args: argparse.Namespace) -> None:
    if args.threads is not None:
        as_count(args.threads, "threads")
    bundle = Bundle(args.bundle, check="always")
    engine = engines.create("bridge", precision=args.precision or "float32")
    for graph, number, added, seconds in pack(bundle, engine, args.threads):
        piece = f"{number + 1} of {len(graph.ms)}" if len(graph.ms) > 1 else ""
        what = "left as it is" if added is None else f"{as_text(added)} more"
        print(f"{graph.title:32}{piece:8}{what:>14}{seconds:7.1f} s", flush=True)
    made = bundle.for_engine(args.threads, engine.precision).packed
    if made is not None:
        print(f"{one_line(bundle.path / packed.FOLDER, keep_bytes=True)}: {as_text(made.size)}")
