"""Convolutions that are no products, in bfloat16 beside float32: ``convolutions.py [--runs 8] [--threads 2]``.

Both precisions take turns. Each graph is a 3x3 convolution with a bias, and the mean of its rows, which keeps the result
small: a result as large as the picture would cost its copy.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kandinsky_mindir.runner import engine
from mindspore import Parameter, Tensor, nn, ops

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import small_graph

# Pictures (batch, height, width, channels) and channels of the result: those of the MoVQ at 512x512, and small ones.
CASES = [((1, 512, 512, 128), 128), ((1, 256, 256, 128), 128), ((1, 512, 512, 16), 128), ((1, 128, 128, 128), 128),
         ((2, 64, 64, 64), 64)]  # fmt: skip
RANDOM = np.random.default_rng(0)


class Convolution(nn.Cell):
    def __init__(self, weight):
        super().__init__()
        self.weight, self.bias = Parameter(Tensor(weight)), Parameter(Tensor(weight[:, 0, 0, 0].copy()))
        self.conv, self.add, self.mean = ops.Conv2D(len(weight), 3, pad_mode="pad", pad=1), ops.BiasAdd(), ops.ReduceMean()

    def construct(self, x):
        y = self.conv(ops.transpose(x, (0, 3, 1, 2)), ops.transpose(self.weight, (0, 3, 1, 2)))
        return self.mean(ops.transpose(self.add(y, self.bias), (0, 2, 3, 1)), (1,))


def measure(shape, channels, runs, threads):
    """Seconds of each run, by the precision."""
    weight, picture = (RANDOM.standard_normal(size).astype(np.float32) for size in ((channels, 3, 3, shape[3]), shape))
    seconds = {"float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = small_graph.write(Path(scratch), lambda: Convolution(weight), lambda: [picture])
        engine.create().convert(folder / "lowered.mindir", folder / "graph.ms")
        with (
            engine.create("bridge", precision="float32").load(folder / "graph.ms", threads=threads) as plain,
            engine.create("bridge", precision="bfloat16").load(folder / "graph.ms", threads=threads) as rounded,
        ):
            for _ in range(runs + 1):
                for model, taken in zip((plain, rounded), seconds.values()):
                    started = time.perf_counter()
                    model.run([picture])
                    taken.append(time.perf_counter() - started)
    return {precision: taken[1:] for precision, taken in seconds.items()}  # the first pays for memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print("| picture | channels | float32, s: best, median | bfloat16, s | ratio of the best |\n" + "| --- " * 5 + "|")
    for shape, channels in CASES:
        plain, rounded = measure(shape, channels, arguments.runs, arguments.threads).values()
        columns = [f"{min(taken):.4f}, {statistics.median(taken):.4f}" for taken in (plain, rounded)]
        ratio = min(rounded) / min(plain)
        print(f"| {'x'.join(map(str, shape))} | {channels} | {' | '.join(columns)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
