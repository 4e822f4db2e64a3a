"""Replay the sealed examples of a bundle on the device at hand and say which graphs compute what they should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ..bundle.manifest import GraphInfo
from ..bundle.sealed_examples import SealedExample, file_name, inputs_name
from ..common.errors import UserError
from ..loading.models import Models

ADVICE = "kandinsky-mindir verify --bisect names the layer"
# The relative error that products and convolutions in bfloat16 explain, whatever the graph. It keeps 8 bits of a
# factor, and so rounds it by 2^-9 at most; evenly spread, a product of two is off by sqrt(2/3) of that, root mean square.
# Roundings do not know of each other and add up as a random walk does. The longest row of products is that of the image
# encoder: 48 layers of 6, and one. Sums are in float32.
PRODUCTS = 289**0.5 * (2 / 3) ** 0.5 * 2.0**-9
# What is allowed in a precision, by what float32's rounding explains in that graph. float16 keeps 11 bits of everything where
# float32 keeps 24: each rounding is 2^13 times as large, and so is, to first order, what comes of all of them.
ALLOWED: dict[str, Callable[[float], float]] = {
    "float32": lambda bound: bound,
    "bfloat16": lambda bound: max(bound, PRODUCTS),
    "float16": lambda bound: bound * 2.0**13,
}


class Verdict(NamedTuple):
    """What came of a graph's example. error: relative, of the worst output; bound: what is allowed there; psnr: in dB.

    seconds: to load the graph and run it once. failure: why it could not be run at all, else None.
    """

    graph: GraphInfo
    error: float
    bound: float
    psnr: float
    seconds: float
    failure: str | None = None

    @property
    def right(self) -> bool:
        return self.failure is None and self.error <= self.bound

    def __str__(self) -> str:
        if self.failure:
            return f"{self.graph.title} does not run: {self.failure}"
        word = "right" if self.right else "wrong"
        return f"{self.graph.title} is {word}: relative error {self.error:.1e}, rounding explains {self.bound:.1e}"


def verify(
    models: Models, part: str | None = None, tolerance: float | None = None, files: bool = True
) -> Iterator[Verdict]:
    """The verdict on each graph, one after another.

    part: only the graphs of that part. tolerance: the relative error to allow, instead of what the engine's precision
    explains: for devices that compute in a lower one. files: check all files of the bundle first. UserError if a
    file is damaged, or if the bundle has no such part or no examples.
    """
    bundle = models.bundle
    graphs = [graph for graph in bundle.manifest.graphs if part in (None, graph.part)]
    if not graphs:
        parts = ", ".join(dict.fromkeys(graph.part for graph in bundle.manifest.graphs))
        raise UserError(f"{bundle.path} has no part {part!r}: it has {parts}")
    if files:
        bundle.verify_files()
    for graph in graphs:
        yield _replay(models, graph, read_example(bundle, graph), tolerance)


def require_right(verdicts: Iterable[Verdict], advice: str = ADVICE) -> None:
    """UserError that names the first graph that is wrong, and what to do; one that does not run says so itself."""
    for verdict in verdicts:
        if not verdict.right:
            raise UserError(f"{verdict}; {advice}" if advice and not verdict.failure else str(verdict))


def read_example(bundle, graph: GraphInfo) -> SealedExample:
    """The sealed example of a graph; UserError if there is none."""
    name = file_name(graph)
    if name not in bundle.manifest.files:
        raise UserError(f"{bundle.path} has no sealed example of {graph.title}: export the bundle again")
    inputs = inputs_name(graph)
    example = SealedExample.read(bundle.file(name), bundle.file(inputs) if inputs in bundle.manifest.files else None)
    found = {name: (array.shape, array.dtype.name) for name, array in example.inputs.items()}
    if found != {tensor.name: (tensor.shape, tensor.dtype) for tensor in graph.inputs}:
        raise UserError(f"{bundle.path / name} is no example of {graph.title}, whose inputs are others: export the bundle again")
    return example


def _replay(models: Models, graph: GraphInfo, example: SealedExample, tolerance: float | None) -> Verdict:
    started = time.monotonic()
    try:
        with models.lease(graph.name, graph.batch, graph.size) as run:
            outputs = run(**example.inputs)
    except UserError as error:
        return Verdict(graph, float("inf"), 0.0, float("-inf"), time.monotonic() - started, str(error))
    seconds = time.monotonic() - started
    allowed = ALLOWED[models.precision if models.bundle.target == "cpu" else "float16"]
    rows = [
        (sample.relative_error(output), tolerance or allowed(sample.bound), sample.psnr(output))
        for sample, output in zip(example.outputs, outputs, strict=True)
    ]
    worst, bound, psnr = max(rows, key=lambda row: row[0] / row[1])
    return Verdict(graph, worst, bound, psnr, seconds)
