"""The command ``kandinsky-mindir``: finds its subcommands, runs one, turns bad input into one line and status 2."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from contextlib import suppress
from importlib.metadata import entry_points, version

from .common.errors import UserError, one_line
from .common.locks import check_system
from .common.stopping import Stopped, stopped_by_signals
from .common.streams import BROKEN_PIPE, discard, failure, reader_is_gone, standard_streams

PROGRAM = "kandinsky-mindir"
GROUP = "kandinsky_mindir.commands"  # entry points: the runner does not import the exporter, each brings its commands
ORDER = ("demo", "export", "merge", "generate", "interpolate", "film", "batch", "inspect", "pack", "unpack", "verify",
         "check", "serve", "runtime")
TRACEBACK = "KANDINSKY_MINDIR_TRACEBACK"  # environment variable: a fault of the program prints its traceback
DESCRIPTION = "Kandinsky 2.2 from prompt to picture on MindSpore Lite."
EPILOG = f"""\
typical use:
  kandinsky-mindir demo                                           pictures from the checkpoint that ships with it
  kandinsky-mindir export --prior DIR --decoder DIR --output BUNDLE --size 512x512
  kandinsky-mindir generate BUNDLE "a red cat, 4k photo" --seed 7 --output cat.png
  kandinsky-mindir interpolate BUNDLE --text "a cat" 0.3 --image starry_night.png 0.7

Each command explains itself: kandinsky-mindir COMMAND --help

A command ends with status 0; 2 after bad input; 1 after a fault of this program, which is then named in one line: set the
environment variable {TRACEBACK}=1 to see where it happened.
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file=None) -> None:
        (file or sys.stderr).write(message)  # argparse's own does not tell that it could not write


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version(PROGRAM)}")
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
    """Run the command line; returns the exit status.

    0; 1 after a fault of the program itself; 2 after bad input; 130 after Ctrl-C, 143 after SIGTERM; 141 if the reader of
    its output went away. Each but the last prints one line.
    """
    with standard_streams(), stopped_by_signals(), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            status = _run(arguments)
            if reason := failure():
                status = _complain(f"error: standard output cannot be written: {_reason(reason)}", 2)
        except KeyboardInterrupt as stop:
            status = _complain(": ".join(["stopped", *map(str, stop.args)]), getattr(stop, "status", Stopped.status))
        if reader_is_gone():
            status = BROKEN_PIPE
        discard()
    return status


def _run(arguments: list[str] | None) -> int:
    try:
        check_system()
        args = build_parser().parse_args(arguments)  # imports the commands: Ctrl-C may come here, too
        args.run(args)
    except SystemExit as exit:  # argparse
        return exit.code if isinstance(exit.code, int) else 0
    except MemoryError:
        return _complain("error: not enough memory: ask for fewer or smaller pictures, or give the machine more", 2)
    except UserError as error:
        return _complain(f"error: {error}", 2)
    except OSError as error:
        if reader_is_gone() or failure():
            return 2  # `main` says why
        where = f"{_name(error.filename)}: " if error.filename is not None else ""
        return _complain(f"error: {where}{_reason(error)}", 2)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        return _complain(f"error: a fault of this program, please report it: {type(error).__name__}: {error} "
                         f"({TRACEBACK}=1 shows where)", 1)
    return 0


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_working_folder():
        return "the working folder is gone: change to one that exists"
    return error.strerror or str(error) or type(error).__name__


def _has_working_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _name(filename) -> str:
    return os.fsdecode(filename) if isinstance(filename, (str, bytes)) else str(filename)


def _complain(message: str, status: int) -> int:
    _say(message)
    return status


def _say(message: str) -> None:
    with suppress(OSError):  # nobody hears it
        print(f"{PROGRAM}: {one_line(message)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
