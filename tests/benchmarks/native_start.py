"""What the C++ program takes before its first step, and in memory: ``native_start.py BUNDLE PROGRAM [--runs 7] [--threads N]``.

PROGRAM is `kandinsky`, as runner/native builds it. Prints, as the median of the runs, the milliseconds from the start of a
process until the UNet has made its first step (text encoder, a step of the prior and the UNet are loaded and run for it):

- of a bare program over Lite's C++ API, which loads the same graphs as plain `.ms` files and runs each once (bare_lite.cc);
- of `kandinsky generate`, with files that were hashed before, as by default from the second start on, and with all of them
  hashed (`--check always`). Each of its models runs in a process of its own, forked from one that has loaded Lite's libraries,
  two of them load at once, and one more is loaded, the MoVQ: on a machine that has but one core to spare it takes longer.

Then the most memory that `kandinsky generate` takes for a picture, with the processes of its models, beside that of
`kandinsky-mindir generate` less what Python takes without models, in `generate --plan`.
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.bundle.ms_layout import HOLE
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.stored.wide_file import open_weights
from kandinsky_mindir.runner.common.memory import PeakMemory
from kandinsky_mindir.runner.engine.compiler import find_compiler

GRAPHS = (("text_encoder", 1), ("prior_context", 1), ("prior", 2), ("unet_context", 1), ("unet", 2))  # name, batch
ASKED = ["a red circle", "--seed", "0"]
ONE_STEP = ["--prior-steps", "1", "--steps", "1"]


def write_models(bundle: Bundle, folder: Path) -> list[Path]:
    """The graphs before and of the first step, as whole `.ms` files in `folder`, in the order in which they run."""
    written = []
    for name, batch in GRAPHS:
        graph = bundle.manifest.find(name, batch, bundle.manifest.sizes[0] if name == "unet" else None)
        for i, path in enumerate(graph.ms):
            source, end = bundle.model(path), 0
            layout, content = source.read(), bytearray()
            skeleton = memoryview(layout.skeleton)
            for stretch in layout.stretches:
                content += skeleton[: stretch.position - end]
                skeleton, end = skeleton[stretch.position - end :], stretch.position + stretch.length
                weights = None if stretch.source == HOLE else open_weights((bundle.path / path).with_name(stretch.source))
                content += bytes(stretch.length) if weights is None else weights[stretch.offset : stretch.offset + stretch.length].tobytes()
            (target := folder / f"{name}-{i}.ms").write_bytes(content + skeleton)
            written.append(target)
    return written


def compile_bare(runtime: Path, folder: Path) -> Path:
    """bare_lite.cc over the libraries of the installed runtime."""
    program, libraries = folder / "bare_lite", runtime / "lib"
    command = [*find_compiler(), "-std=c++17", "-O2", "-D_GLIBCXX_USE_CXX11_ABI=0", f"-I{runtime}", f"-I{runtime / 'include'}",
               str(Path(__file__).with_name("bare_lite.cc")), "-o", str(program), f"-L{libraries}", "-lmindspore-extendrt_python",
               "-lmsplugin-ge-litert_python", "-lmindspore_core", f"-Wl,-rpath-link,{libraries}", "-Wl,--disable-new-dtags",
               f"-Wl,-rpath,{libraries}"]  # fmt: skip
    subprocess.run(command, check=True)
    return program


def seconds_until(word: bytes, command: list, **environment: str) -> float:
    """From the start of a process until it prints `word`; on a terminal, where programs show progress."""
    ours, theirs = pty.openpty()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, **environment})
    os.close(theirs)
    text, found = b"", 0.0
    try:
        while part := os.read(ours, 1 << 16):
            text += part
            if word in text and not found:
                found = time.perf_counter() - started
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    if process.wait() or not found:
        raise SystemExit(f"{command[0]} ended with status {process.returncode}: {text.decode(errors='replace')[-500:]}")
    return found


def peak(command: list, **environment: str) -> int:
    """The most memory that the process of `command` and those that it starts take."""
    with PeakMemory() as memory:
        before = memory.peak
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment})
    return memory.peak - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    bundle, runtime = Bundle(args.bundle), engine.create().runtime
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models, bare = write_models(bundle, folder), compile_bare(runtime.root, folder)
        options = [*ASKED, "--threads", str(args.threads), "--output", str(folder / "picture.png")]
        ours = [args.program.absolute(), "generate", args.bundle, *options]
        environment = {"KANDINSKY_MINDIR_BRIDGE": str(runtime.bridge)}
        ways = {
            "bare": (b"step", [bare, str(args.threads), *models]),
            "kandinsky": (b"decoder 1/1", [*ours, *ONE_STEP]),
            "kandinsky, hashing": (b"decoder 1/1", [*ours, *ONE_STEP, "--check", "always"]),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for run in range(args.runs + 1):  # side by side; the first run is for the system's cache
            for way, (word, command) in ways.items():
                found = seconds_until(word, command, **environment)
                seconds[way] += [found] if run else []
        print("| start to first step | ms | of bare |\n| --- | --- | --- |")
        for way, found in seconds.items():
            share = statistics.median(mine / other for mine, other in zip(found, seconds["bare"], strict=True))
            print(f"| {way} | {1000 * statistics.median(found):.0f} | {share:.2f} |")
        python = [sys.executable, "-m", "kandinsky_mindir.runner.cli", "generate", args.bundle, *options, "--quiet"]
        own = peak([*python, "--plan"])
        theirs, mine = peak(python) - own, peak([*ours, "--quiet"], **environment)
        print(f"\npeak memory of a picture: kandinsky {mine / 1e6:.1f} MB; kandinsky-mindir {theirs / 1e6:.1f} MB beside "
              f"{own / 1e6:.1f} MB of Python's own; {mine / theirs:.2f} of it")


if __name__ == "__main__":
    main()
