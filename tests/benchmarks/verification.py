"""What integrity costs: the time that hashing adds to a picture, and the time to verify a whole bundle.

  python tests/benchmarks/verification.py BUNDLE [--runs 5] [--threads N] [--loads]

Prints, best of the runs: the seconds and seconds a GB of hashing all files (they are in the page cache then); the
seconds to load what a picture needs, part after part, with hashing beside it and without; the seconds of the default
picture in a new pipeline, with loading, the same without hashing, and what hashing took meanwhile, the most that it can
add; the seconds of `verify`. With and without take turns. --loads: no picture and no verify.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, engine
from kandinsky_mindir.runner.bundle.ms_layout import Layout
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.loading.memory_plan import text_to_picture
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import require_right, verify

PROMPT = "a red circle"


class TimedBundle(Bundle):
    """A bundle that counts the seconds it spends on checking files."""

    seconds = 0.0

    def file(self, name: str) -> Path:
        started = time.monotonic()
        try:
            return super().file(name)
        finally:
            self.seconds += time.monotonic() - started


def hash_all(bundle: Path) -> float:
    started = time.monotonic()
    Bundle(bundle).verify_files()
    return time.monotonic() - started


class UncheckedBundle(Bundle):
    """A bundle that checks no file."""

    seconds = 0.0

    def file(self, name: str) -> Path:
        return self.path / name


def make_picture(bundle: Bundle, threads: int | None, started: float) -> float:
    """Seconds from `started` to the default picture, in a new pipeline."""
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, threads=threads)
    pipeline.set_progress_bar_config(disable=True)
    pipeline(PROMPT, generator=0)
    seconds = time.monotonic() - started
    pipeline.unload()
    return seconds


def load_all(bundle: Bundle, threads: int | None, started: float) -> float:
    """Seconds from `started` to load and free each graph of a guided picture of the bundle's first size."""
    models = Models(bundle, engine.create(), threads=threads, keep_loaded=False)
    for graph in text_to_picture(bundle.manifest, bundle.manifest.sizes[0]):
        with models.lease(graph.name, graph.batch, graph.size):
            pass
    return time.monotonic() - started


def loaded_bytes(bundle: Bundle) -> int:
    """Bytes of the models that `load_all` loads."""
    graphs = text_to_picture(bundle.manifest, bundle.manifest.sizes[0])
    return sum(Layout.read(bundle.file(path)).size for graph in graphs for path in graph.ms)


def compare(what: Callable, path: Path, threads: int | None, runs: int) -> tuple[float, float, float]:
    """Seconds of `what` with checking, without, and those spent on checking; the best of runs that take turns."""
    found = {TimedBundle: [], UncheckedBundle: []}
    for _ in range(runs):
        for kind, times in found.items():
            started = time.monotonic()
            bundle = kind(path)
            times.append((what(bundle, threads, started), bundle.seconds))
    (checked, checking), (unchecked, _) = map(min, found.values())
    return checked, unchecked, checking


def report(title: str, seconds: float, remark: str = "") -> None:
    print(f"{title:45} {seconds:9.3f} s  {remark}".rstrip(), flush=True)


def report_pair(title: str, checked: float, unchecked: float, checking: float) -> None:
    report(f"{title}, hashing beside it", checked, f"{100 * (checked / unchecked - 1):+.1f} %")
    report("  without hashing", unchecked)
    report("  hashing took meanwhile", checking)


def verify_all(bundle: Path, threads: int | None) -> float:
    started = time.monotonic()
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, threads=threads, keep_loaded=False)
    require_right(verify(pipeline.models))
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--loads", action="store_true", help="no picture and no verify")
    args = parser.parse_args()
    files = Bundle(args.bundle).manifest.files
    size = sum(info.size for info in files.values())
    hashing = min(hash_all(args.bundle) for _ in range(args.runs))
    report(f"hashing all {size / 1e6:.0f} MB", hashing, f"{hashing / size * 1e9:.2f} s/GB")
    loads, loaded = compare(load_all, args.bundle, args.threads, args.runs), loaded_bytes(Bundle(args.bundle))
    report_pair(f"loading all stages, {loaded / 1e6:.0f} MB", *loads)
    report("  a GB", loads[0] / loaded * 1e9, f"hashing adds {(loads[0] - loads[1]) / loaded * 1e9:.2f} s")
    if not args.loads:
        report_pair("default picture, new pipeline", *compare(make_picture, args.bundle, args.threads, args.runs))
        report("verify", min(verify_all(args.bundle, args.threads) for _ in range(args.runs)))


if __name__ == "__main__":
    main()
