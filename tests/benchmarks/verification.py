"""What integrity costs: the time that hashing adds to a picture, and the time to verify a whole bundle.

  python tests/benchmarks/verification.py BUNDLE [--runs 5] [--threads N]

Prints, best of the runs: the seconds and seconds a GB of hashing all files (they are in the page cache then); the seconds of
the default picture in a new pipeline, with loading; how much hashing that took, which is done beside the loading, so its share
is the most that it can add; the seconds of the same without hashing; the seconds of `verify`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from kandinsky_mindir.runner.bundle import Bundle
from kandinsky_mindir.runner.verify import require_right, verify

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


def pictures(kind: type, path: Path, threads: int | None, runs: int) -> tuple[float, float]:
    """(seconds of a picture, seconds of them that were spent on checking), of the best run."""
    found = []
    for _ in range(runs):
        started = time.monotonic()
        bundle = kind(path)
        found.append((make_picture(bundle, threads, started), bundle.seconds))
    return min(found)


def verify_all(bundle: Path, threads: int | None) -> float:
    started = time.monotonic()
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, threads=threads, keep_loaded=False)
    require_right(verify(pipeline.components))
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    size = sum(info.size for info in Bundle(args.bundle).manifest.files.values())
    hashing = min(hash_all(args.bundle) for _ in range(args.runs))
    picture, checking = pictures(TimedBundle, args.bundle, args.threads, args.runs)
    without, _ = pictures(UncheckedBundle, args.bundle, args.threads, args.runs)
    print(f"{'hashing all ' + format(size / 1e6, '.0f') + ' MB':35} {hashing:8.3f} s  {hashing / size * 1e9:.2f} s/GB")
    print(f"{'default picture, new pipeline':35} {picture:8.3f} s")
    print(f"{'  hashing, beside the loading':35} {checking:8.3f} s  at most {100 * checking / picture:.1f} %")
    print(f"{'  the same without hashing':35} {without:8.3f} s")
    print(f"{'verify':35} {min(verify_all(args.bundle, args.threads) for _ in range(args.runs)):8.3f} s")


if __name__ == "__main__":
    main()
