"""One pipeline under load: many pictures in a row, from many threads, several pipelines in a process, stopped at any moment.

  python tests/programs/endurance.py BUNDLE [--pictures 1000] [--threads 8] [--interrupts 20] [--steps 2]

Every picture must have the bits of the same request made alone, in a process of its own. Memory, threads, file handles and
processes are counted after a warm-up of a tenth of the pictures and at the end; they must not have grown (memory: by
more than `MEMORY_SLACK`). Pictures are of a few steps, since what could leak is done once a picture or once a step alike.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from kills import running

PROGRAM = [sys.executable, "-m", "kandinsky_mindir.runner.cli"]
PROMPTS = ("a red circle", "a blue square on white", "", "a green triangle")
MEMORY_SLACK = 16 << 20  # bytes: what an allocator's arenas move about; a leak of one latents array a step is far more
ALONE = """
import sys
import numpy as np, endurance
bundle, out, steps, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
pipeline = endurance.open_pipeline(bundle)
np.save(out, [endurance.picture(pipeline, number, steps) for number in range(count)])
"""


def open_pipeline(bundle, **options) -> KandinskyV22CombinedPipeline:
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, **{"threads": 1, **options})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline, number: int, steps: int) -> np.ndarray:
    """The picture of that number: prompt, seed and guidance follow from it."""
    return pipeline(PROMPTS[number % len(PROMPTS)], generator=number % 8, num_inference_steps=steps,
                    prior_num_inference_steps=steps, guidance_scale=1.0 if number % 3 == 2 else 2.0, output_type="np").images[0]


def pictures_alone(bundle: Path, count: int, steps: int) -> np.ndarray:
    """The first `count` pictures, made one after another in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "pictures.npy")
        command = [sys.executable, "-c", ALONE, bundle, out, str(steps), str(count)]
        subprocess.run(command, check=True, cwd=Path(__file__).parent)
        return np.load(out)


class Figures(NamedTuple):
    """Of this process, with the memory of the processes that run its models."""

    memory: int
    threads: int
    files: int
    processes: int

    @classmethod
    def now(cls) -> Figures:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for task in Path("/proc/self/task").iterdir():
            children += [child for child in (task / "children").read_text().split() if child not in children]
        memory = sum(_resident(process) for process in ("self", *children))
        return cls(memory, threading.active_count(), len(os.listdir("/proc/self/fd")), len(children))

    def __str__(self) -> str:
        return (f"{self.memory / 2**20:.0f} MiB, {self.threads} threads, {self.files} file handles, "
                f"{self.processes} processes")


def _resident(process: str) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def assert_no_growth(first: Figures, last: Figures) -> None:
    assert all(b <= a for a, b in zip(first[1:], last[1:])), f"{first} became {last}"
    assert last.memory <= first.memory + MEMORY_SLACK, f"{first} became {last}"


def in_a_row(bundle: Path, expected: np.ndarray, count: int, steps: int) -> tuple[Figures, Figures]:
    """`count` pictures by one pipeline, each compared; the figures after a tenth of them and at the end."""
    pipeline, first = open_pipeline(bundle), None
    for number in range(count):
        found = picture(pipeline, number % len(expected), steps)
        assert np.array_equal(found, expected[number % len(expected)]), f"picture {number} has other bits"
        if number == max(len(expected), count // 10) - 1:
            first = Figures.now()
    last = Figures.now()
    pipeline.unload()
    assert_no_growth(first, last)
    return first, last


def in_threads(bundle: Path, expected: np.ndarray, threads: int, steps: int, pipelines: int = 1, **options) -> None:
    """Every picture, asked for by so many threads at once, of so many pipelines in turn."""
    opened = [open_pipeline(bundle, **options) for _ in range(pipelines)]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda number: picture(opened[number % pipelines], number, steps), range(len(expected)))
        for number, (ours, alone) in enumerate(zip(found, expected)):
            assert np.array_equal(ours, alone), f"picture {number} has other bits"
    for pipeline in opened:
        pipeline.unload()


def interrupted(bundle: Path, after: float) -> str:
    """Ctrl-C so many seconds after `generate` has started its first model; what it says.

    AssertionError if it leaves anything.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [*PROGRAM, "generate", str(Path(bundle).absolute()), "a cat", "--steps", "1000", "--threads", "1", "--quiet"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "TMPDIR": folder}, start_new_session=True) as process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not children.read_text():
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            time.sleep(after)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to it and to what it started
            output, errors = process.communicate(timeout=120)
            assert (process.returncode, output) == (130, ""), (process.returncode, output, errors)
            assert errors.count("\n") <= 1 and "Traceback" not in errors, errors
        deadline = time.monotonic() + 60
        while running(process.pid):
            assert time.monotonic() < deadline, "processes go on without it"
            time.sleep(0.02)
        assert os.listdir(folder) == [], os.listdir(folder)
    return errors.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    for name, value in (("pictures", 1000), ("threads", 8), ("interrupts", 20), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
    bundle = args.bundle.absolute()
    expected = pictures_alone(bundle, min(24, args.pictures), args.steps)
    if args.threads:
        before = Figures.now()
        in_threads(bundle, expected, args.threads, args.steps)
        in_threads(bundle, expected, args.threads, args.steps, keep_loaded=False)
        in_threads(bundle, expected, args.threads, args.steps, pipelines=3)
        print(f"{args.threads} threads on one pipeline, on one that frees its models, on three: the same bits")
        print(f"  before {before}\n  after  {Figures.now()}")
    first, last = in_a_row(bundle, expected, args.pictures, args.steps)
    print(f"{args.pictures} pictures of {args.steps} + {args.steps} steps in a row: the same bits")
    print(f"  first {first}\n  last  {last}")
    random = np.random.default_rng(0)
    for _ in range(args.interrupts):
        after = float(random.uniform(0, 5))
        print(f"Ctrl-C {after:.2f} s after the first model: {interrupted(bundle, after)}", flush=True)


if __name__ == "__main__":
    main()
