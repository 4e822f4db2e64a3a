"""Make the pictures of a file of requests, on the cores of this machine or on the nodes of a Ray cluster.

  kandinsky-mindir batch BUNDLE prompts.jsonl --output pictures
  kandinsky-mindir batch BUNDLE prompts.csv --output pictures --workers 4 --threads 8
  kandinsky-mindir batch /local/bundle prompts.jsonl --output pictures --ray auto

A line of JSON is a request, for example {"id": "cat-1", "prompt": "a cat", "seed": 7, "num_inference_steps": 20}, with the
fields that a picture's recipe has; in CSV the first line names them. Without an id a row is named by its digest, without a
seed it gets one of its own that stays. All rows are judged before the first picture is made. Each picture is written as
ID.png, whole or not at all; those that are there are skipped, so the same command goes on after whatever ended it.
OUTPUT/results.jsonl says of each what it took, or why it could not be made. Status 0: all pictures are there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle.checked_files import sha256_of
from ..bundle.manifest import FILE_NAME
from ..common.control_groups import thread_count
from ..common.errors import UserError, one_line
from ..common.options import as_count
from . import arguments

if TYPE_CHECKING:
    from ..batch.crew import Crew
    from ..batch.drive import Judge
    from ..batch.output import Output
    from ..batch.rows import Job

HELP = "make the pictures of a file of requests, on one machine or many"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("requests", type=Path, metavar="REQUESTS", help="file of requests: *.jsonl, *.ndjson or *.csv")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the pictures; it may be there")
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="how often a picture that fails is tried again "
                        "(default 2)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    group = parser.add_argument_group("machines")
    group.add_argument("--workers", type=int, default=1, metavar="N",
                       help="processes that make pictures side by side, on each machine (default 1); they share its cores and "
                       "its memory")
    group.add_argument("--ray", metavar="ADDRESS",
                       help="use the nodes of the Ray cluster at ADDRESS, HOST:PORT or auto (needs the extra [ray]); files that "
                       "requests name are sent there, pictures are sent back")
    group.add_argument("--node-bundle", metavar="DIR",
                       help="with --ray: where the bundle lies on each node, ~ and $NAME as that node has them (default BUNDLE)")
    arguments.add_engine(parser, plans=False)


def run(args: argparse.Namespace) -> None:
    from ..batch import drive, output, rows

    started = time.monotonic()
    workers, tries = as_count(args.workers, "workers"), _tries(args)
    jobs = rows.jobs_of(args.requests, rows.read(args.requests))
    with _machines(args, workers) as (judge, crew_for):
        jobs = drive.judged(args.requests, jobs, judge)
        with output.opened(args.output, jobs) as place:
            missing = place.missing(jobs, judge.bundle_sha256, judge.precision)
            there = len(jobs) - len(missing)
            try:
                failed = _make(args, missing, there, crew_for, place, tries) if missing else {}
            except KeyboardInterrupt as stop:
                stop.args = ("the same command goes on from what is there",)
                raise
    made = len(missing) - len(failed)
    print(f"{made} pictures made, {there} were there, {time.monotonic() - started:.1f} s", file=sys.stderr)
    if failed:
        name, why = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(jobs)} pictures could not be made, {name} for one: {why} "
                        f"({args.output / output.RESULTS} says all; the same command tries them again)")


def _make(args: argparse.Namespace, missing: Sequence[Job], there: int, crew_for: Callable[[int], Crew], place: Output,
          tries: int) -> dict[str, str]:
    """Make them; why those that could not be made could not."""
    from ..batch import drive
    from ..batch.progress import Progress

    failed = {}
    with Progress(len(missing) + there, there, args.quiet) as progress:
        for outcome in drive.drive(missing, crew_for(len(missing)), place, args.bundle, tries, progress.tick):
            if outcome.answer is not None and outcome.answer.png is not None:
                print(one_line(args.output / outcome.job.file, keep_bytes=True), flush=True)
            else:
                failed[outcome.job.file] = drive.error_of(outcome)
    return failed


@contextmanager
def _machines(args: argparse.Namespace, workers: int) -> Iterator[tuple[Judge, Callable[[int], Crew]]]:
    """Who judges the rows, and from a number of pictures to the crew that makes them."""
    from ..batch.cluster import Cluster
    from ..batch.painter import Painter, Setting
    from ..batch.processes import Processes
    from ..pictures.provenance import as_text

    options, named = arguments.engine_options(args), as_text(args.bundle)
    if args.ray is None:
        options["threads"] = _threads(args.threads, workers)
        setting = Setting(str(args.bundle), named, options, workers)
        judge = Painter(setting)
        yield judge, lambda pictures: Processes(setting, min(workers, pictures))
        return
    manifest = args.bundle / FILE_NAME
    options["threads"] = None if args.threads is None else as_count(args.threads, "threads")
    where = args.node_bundle if args.node_bundle is not None else str(args.bundle.absolute())
    sha256 = sha256_of(manifest) if manifest.is_file() else None
    with closing(Cluster(args.ray, Setting(where, named, options, workers), sha256)) as crew:
        yield crew, lambda _: crew


def _tries(args: argparse.Namespace) -> int:
    if args.retries < 0:
        raise UserError(f"--retries is {args.retries}: it must be 0 or more")
    if args.node_bundle is not None and args.ray is None:
        raise UserError("--node-bundle is for --ray: without it, give the BUNDLE")
    return args.retries + 1


def _threads(threads: int | None, workers: int) -> int:
    """Threads of each of the workers, which share the processors that this process may use."""
    processors = thread_count(None)
    if threads is None and workers > processors:
        raise UserError(f"--workers is {workers} and there are {processors} processors: choose fewer, or say how many "
                        "--threads each has")
    return processors // workers if threads is None else as_count(threads, "threads")
