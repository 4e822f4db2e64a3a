"""What a gigabyte less costs: the UNet's step in every way to load it, ``memory.py BUNDLE [--size HxW] [--runs 2]``.

A graph in pieces may keep some of them in memory and load the others again in every step (runner/loading/footprint.py). For
each such way the table gives what the plan estimates, the peak that was measured, and the seconds of loading before the
first step, of the first step, and of a later one, the best of the runs. If the bundle is packed, both ways are measured.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
from kandinsky_mindir.runner import engine
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.commands.arguments import size
from kandinsky_mindir.runner.common.memory import PeakMemory
from kandinsky_mindir.runner.loading import footprint
from kandinsky_mindir.runner.loading.loader import load as load_graph


def measure(bundle, graph, resident, runs, threads):
    """(peak bytes, seconds to load, seconds of the first run, of a later one) of a graph of which `resident` pieces stay."""
    random = np.random.default_rng(0)
    inputs = {tensor.name: random.standard_normal(tensor.shape).astype(np.float32) for tensor in graph.inputs}
    seconds = []
    with PeakMemory() as memory:
        before, started = memory.peak, time.perf_counter()
        with load_graph(bundle, graph, engine.create(), "cpu", threads, resident) as model:
            load = time.perf_counter() - started
            for _ in range(runs):
                started = time.perf_counter()
                model.run([inputs[tensor.name] for tensor in model.inputs])
                seconds.append(time.perf_counter() - started)
    return memory.peak - before, load, seconds[0], min(seconds[1:], default=math.nan)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--size", type=size, metavar="HxW", help="picture size (default: the bundle's first)")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    exported, packed = (Bundle(arguments.bundle, use_packed).for_engine(arguments.threads) for use_packed in (False, True))
    print("| pieces that stay | estimate, GB | peak, GB | load, s | first step, s | later, s |\n" + "| --- " * 6 + "|")
    for bundle in [exported, packed] if packed.packed else [exported]:
        bundle.verify_files()  # once, before anything is timed
        for row in rows(bundle, arguments):
            print(f"| {' | '.join(row)} |", flush=True)


def rows(bundle, arguments):
    graph = bundle.manifest.find("unet", 2, arguments.size or bundle.manifest.sizes[0])
    for resident in footprint.ways(graph):
        estimate = footprint.footprint(bundle, graph, resident).loading
        if footprint.choose(bundle, graph, estimate) != resident:
            continue  # another takes no more and is faster
        peak, *seconds = measure(bundle, graph, resident, arguments.runs, arguments.threads)
        title = f"{resident} of {len(graph.ms)}{', packed' if bundle.packed else ''}"
        yield title, f"{estimate / 1e9:.2f}", f"{peak / 1e9:.2f}", *(f"{value:.1f}" for value in seconds)


if __name__ == "__main__":
    main()
