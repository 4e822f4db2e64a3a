"""Install MindSpore Lite for this machine, carry it to another, or say what is installed.

  kandinsky-mindir runtime info
  kandinsky-mindir runtime install                      through pip's own configuration
  kandinsky-mindir runtime install --wheel FILE         from a wheel that was downloaded before
  kandinsky-mindir runtime archive --output FILE        for devices without compiler and network: FILE is named *.tar.xz
                                                        or *.tar.gz, made on a machine of the same kind
  kandinsky-mindir runtime install --archive FILE       on such a device

Commands that need the runtime install it by themselves. It goes to the user's cache; the variable
KANDINSKY_MINDIR_CACHE names another folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine import runtime

HELP = "install MindSpore Lite, carry it to another machine, or say what is installed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    install = actions.add_parser("install", help="fetch, check, unpack, build", description="Install MindSpore Lite.")
    source = install.add_mutually_exclusive_group()
    source.add_argument("--wheel", type=Path, metavar="FILE", help="a downloaded wheel instead of pip")
    source.add_argument("--archive", type=Path, metavar="FILE", help="what `runtime archive` wrote: needs no compiler, no pip")
    archive = actions.add_parser("archive", help="write it as one file, for a device without compiler and network",
                                 description="Write the runtime of this machine as one file, for machines of its kind.")
    archive.add_argument("--output", type=Path, metavar="FILE", required=True, help="named *.tar.xz (smaller) or *.tar.gz")
    actions.add_parser("info", help="say what is installed", description="Say what is installed.")


def run(args: argparse.Namespace) -> None:
    if args.action == "archive":
        written = runtime.write_archive(args.output)
        print(f"{written}: {written.stat().st_size / 1e6:.1f} MB; on the device: kandinsky-mindir runtime install --archive "
              f"{written.name}")
        return
    if args.action == "install":
        runtime.install(wheel=args.wheel, archive=args.archive)
        if args.wheel is None and args.archive is None:
            runtime.add_onednn()
    for key, value in runtime.info().items():
        print(f"{key:10} {value}")
