"""Write all that a board needs, without Python and compiler, as one archive: program, libraries, bundle.

  kandinsky-mindir board BUNDLE --target aarch64 --output board.tar.xz

The program kandinsky is built here for the target, with Debian's cross compiler or, for machines of this kind, the compiler at
hand. On the board: unpack the archive anywhere, and read the README in it. What is packed in the bundle stays behind: it is
for one kind of processor.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..board.making import make
from ..board.toolchain import TARGETS
from ..bundle.opened import Bundle
from ..common.errors import one_line
from ..common.memory import as_text
from ..engine import say_on_stderr

HELP = "write all that a board needs as one archive"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--target", choices=tuple(TARGETS), required=True, help="what the board is")
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help="named *.tar.xz (smaller) or *.tar.gz")
    parser.add_argument("--libraries", type=Path, metavar="FOLDER",
                        help="what Debian's packages of small libraries unpack to, for the target (default: fetched by apt-get)")
    parser.add_argument("--wheel", type=Path, metavar="FILE",
                        help="a downloaded wheel of MindSpore Lite for the target (default: pip fetches it)")


def run(args: argparse.Namespace) -> None:
    made = make(Bundle(args.bundle, check="always"), args.target, args.output, say_on_stderr, args.libraries, args.wheel)
    print(f"{one_line(args.output, keep_bytes=True)}: {as_text(made.packed)}; unpacked {as_text(made.unpacked)}, of which the "
          f"bundle is {as_text(made.bundle)}; on the board: tar xf {args.output.name}, and read README")
