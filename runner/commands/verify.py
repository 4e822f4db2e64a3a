"""Check that a bundle computes what its checkpoint says, on this machine and device.

  kandinsky-mindir verify BUNDLE
  kandinsky-mindir verify BUNDLE --part unet
  kandinsky-mindir verify BUNDLE --bisect                    name the layer where the numbers first go wrong

Every file is held to its sha256. Then each graph runs on inputs from a forward pass of the checkpoint, and its outputs
are held to what an independent float64 computation made of them at export. Exit status 2 if a graph is wrong.
"""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points
from pathlib import Path

from .. import engine as engines
from ..bundle.opened import Bundle
from ..common.errors import UserError
from ..common.options import as_count
from ..loading.models import Models
from ..upkeep.replay import ADVICE, Verdict, require_right, verify
from . import arguments

HELP = "check that a bundle computes what it should on this machine"
BISECT = "kandinsky_mindir.bisect"  # entry point: the exporter brings it, the runner does not import the exporter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--part", metavar="NAME", help="only this part, for example unet")
    parser.add_argument("--bisect", action="store_true",
                        help="say in which layer each wrong graph goes wrong (needs the export extra; CPU)")
    parser.add_argument("--tolerance", type=float, metavar="X",
                        help="relative error to allow, for devices of lower precision (default: what --precision explains)")
    parser.add_argument("--engine", choices=engines.ENGINES, default="auto", help="what runs the graphs (default auto)")
    parser.add_argument("--device", choices=("cpu", "ascend"), default="cpu", help="where graphs run (default cpu)")
    arguments.add_threads(parser)
    arguments.add_precision(parser)


def run(args: argparse.Namespace) -> None:
    if args.tolerance is not None and not args.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, not {args.tolerance:g}")
    if args.threads is not None:
        as_count(args.threads, "threads")
    bundle = Bundle(args.bundle, check="always")
    bisect = _bisect() if args.bisect else None
    engine = engines.create(args.engine, precision=args.precision or "float32")
    if bisect and engine.precision != "float32":
        raise UserError(f"--bisect compares layers with what float32 explains, not {engine.precision}: leave out --precision")
    models = Models(bundle, engine, device=args.device, threads=args.threads, keep_loaded=False)
    verdicts: list[Verdict] = []
    for verdict in verify(models, args.part, args.tolerance):
        if not verdicts:
            print(f"{'graph':16}{'batch':6}{'size':10}{'error':>9}{'allowed':>9}{'PSNR':>8}{'seconds':>9}  verdict")
        print(_row(verdict), flush=True)
        if bisect and not verdict.right:
            print(f"  {bisect(bundle, verdict.graph, engine)}", flush=True)
        verdicts.append(verdict)
    require_right(verdicts, "" if bisect else ADVICE)


def _row(verdict: Verdict) -> str:
    graph = verdict.graph
    size = f"{graph.size[0]}x{graph.size[1]}" if graph.size else ""
    word = "does not run" if verdict.failure else "right" if verdict.right else "WRONG"
    numbers = f"{verdict.error:9.1e}{verdict.bound:9.1e}{verdict.psnr:8.1f}{verdict.seconds:9.2f}"
    return f"{graph.name:16}{graph.batch:<6}{size:10}{numbers}  {word}"


def _bisect():
    """What finds the layer; UserError where the exporter's requirements are missing."""
    (point,) = entry_points(group=BISECT)
    try:
        return point.load()
    except ImportError:
        raise UserError("--bisect needs the exporter: run pip install '.[export]' in a clone of kandinsky-mindir") from None
