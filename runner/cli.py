"""The command ``kandinsky-mindir``: finds its subcommands, runs one, turns bad input into one line and status 2."""

from __future__ import annotations

import argparse
import sys
import warnings
from importlib.metadata import entry_points

from .common.errors import UserError

PROGRAM = "kandinsky-mindir"
GROUP = "kandinsky_mindir.commands"  # entry points: the runner does not import the exporter, each brings its commands
ORDER = ("demo", "export", "generate", "interpolate", "inspect", "pack", "verify", "check", "runtime")
DESCRIPTION = "Kandinsky 2.2 from prompt to picture on MindSpore Lite."
EPILOG = """\
typical use:
  kandinsky-mindir demo                                           pictures from the checkpoint that ships with it
  kandinsky-mindir export --prior DIR --decoder DIR --output BUNDLE --size 512x512
  kandinsky-mindir generate BUNDLE "a red cat, 4k photo" --seed 7 --output cat.png
  kandinsky-mindir interpolate BUNDLE --text "a cat" 0.3 --image starry_night.png 0.7

Each command explains itself: kandinsky-mindir COMMAND --help
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    points = {point.name: point for point in entry_points(group=GROUP)}
    for name in sorted(points, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        command = points[name].load()
        subparser = subparsers.add_parser(
            name,
            help=command.HELP,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 after bad input, or 130 after Ctrl-C."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"{PROGRAM}: warning: {message}", file=sys.stderr)
        try:
            args = build_parser().parse_args(arguments)  # imports the commands: Ctrl-C may come here, too
            args.run(args)
        except KeyboardInterrupt as stop:
            return _complain(": ".join(["stopped", *map(str, stop.args)]), 130)
        except MemoryError:
            return _complain("error: not enough memory: ask for fewer or smaller pictures, or give the machine more", 2)
        except UserError as error:
            return _complain(f"error: {error}", 2)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return _complain(f"error: {where}{error.strerror or error}", 2)
    return 0


def _complain(message: str, status: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
