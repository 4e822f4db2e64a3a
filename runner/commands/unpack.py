"""Write the MindIR files of a bundle, with their weights, for MindSpore itself or any tool of its.

  kandinsky-mindir unpack BUNDLE --output FOLDER

FOLDER gets a folder for each part, with its GRAPH.mindir and GRAPH.lite.mindir and a file weights.bin beside them, all
float32, whatever type the bundle stores the weights in: mindspore.load() and the vendor's packages read them. The bundle
stays as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..bundle.opened import Bundle
from ..common.errors import one_line
from ..common.memory import as_text
from ..upkeep.unpacking import unpack

HELP = "write a bundle's MindIR files for MindSpore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to write")


def run(args: argparse.Namespace) -> None:
    unpack(Bundle(args.bundle), args.output)
    size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    print(f"{one_line(args.output, keep_bytes=True)}: {as_text(size)}")
