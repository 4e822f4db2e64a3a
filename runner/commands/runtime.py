"""Install MindSpore Lite for this machine, or say what is installed.

  kandinsky-mindir runtime info
  kandinsky-mindir runtime install                      through pip's own configuration
  kandinsky-mindir runtime install --wheel FILE         from a wheel that was downloaded before

Commands that need the runtime install it by themselves. It goes to the user's cache; the variable
KANDINSKY_MINDIR_CACHE names another folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine import runtime

HELP = "install MindSpore Lite, or say what is installed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    install = actions.add_parser("install", help="fetch, check, unpack, build", description="Install MindSpore Lite.")
    install.add_argument("--wheel", type=Path, metavar="FILE", help="a downloaded wheel instead of pip")
    actions.add_parser("info", help="say what is installed", description="Say what is installed.")


def run(args: argparse.Namespace) -> None:
    if args.action == "install":
        runtime.install(wheel=args.wheel)
    for key, value in runtime.info().items():
        print(f"{key:10} {value}")
