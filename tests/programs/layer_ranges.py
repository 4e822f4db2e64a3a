"""Prints how far layers' values reach with other texts than that of the sealed examples, from which an export for Ascend tells
which layers may compute in float16.

    python tests/programs/layer_ranges.py BUNDLE [--emoji 20] [--calls 3]

BUNDLE: the trained checkpoint, exported. Each text is drawn with the default steps; of each graph that is called several times
for it, the first call, the last and some between count. Growth: the largest value of a layer over all calls, by that of the
example. Ends with status 1 if a layer that counts as narrow overflows float16.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import support_path  # noqa: F401
from emoji import DATA
from kandinsky_mindir.export.ascend.precision import LARGEST, MARGIN, peaks
from kandinsky_mindir.export.graphs.reader import read_model
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, TorchGenerator
from kandinsky_mindir.runner.bundle.manifest import GraphInfo
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.sealed_examples import SealedExample, file_name
from kandinsky_mindir.runner.loading.models import Models

PRIOR_STEPS, STEPS = 25, 20
Peaks = Mapping[str, float]  # by layer


class Graph(NamedTuple):
    """What one graph showed. example: of the sealed one; most: of all calls."""

    info: GraphInfo
    example: Peaks
    most: dict[str, float]

    @property
    def narrow(self) -> list[str]:
        return [layer for layer, peak in self.example.items() if peak * MARGIN <= LARGEST]

    def growth(self, layer: str) -> float:
        return self.most[layer] / self.example[layer] if self.example[layer] else float(self.most[layer] > 0)


def calls(bundle: Path, texts: list[str]) -> dict[GraphInfo, list[list[Mapping[str, np.ndarray]]]]:
    """The inputs of each graph, by name, of each call for each text."""
    seen: dict[GraphInfo, list[list[Mapping[str, np.ndarray]]]] = defaultdict(list)
    load = Models._load

    def watched(self: Models, graph: GraphInfo, resident: int | None) -> Any:
        model = load(self, graph, resident)
        model.run = partial(record, graph, model.run)
        return model

    def record(graph: GraphInfo, run: Callable[[Any], Any], arrays: Any) -> Any:
        seen[graph][-1].append({tensor.name: np.array(array) for tensor, array in zip(graph.inputs, arrays, strict=True)})
        return run(arrays)

    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, keep_loaded=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unload()  # what another pipeline has loaded
    graphs = Bundle(bundle).manifest.graphs
    Models._load = watched  # type: ignore[method-assign]
    try:
        for seed, text in enumerate(texts):
            for graph in graphs:
                seen[graph].append([])
            pipeline(text, prior_num_inference_steps=PRIOR_STEPS, num_inference_steps=STEPS, generator=TorchGenerator(seed))
    finally:
        Models._load = load  # type: ignore[method-assign]
        pipeline.unload()
    return seen


def measure(bundle: Path, texts: list[str], each: int) -> list[Graph]:
    """Graphs that were called, as the interpreter computes them in float32. each: calls of a graph for a text that count."""
    opened, found = Bundle(bundle), []
    for info, by_text in calls(bundle, texts).items():
        if not any(by_text):
            continue
        with opened.unpacked(info, info.mindir) as path:
            reach = partial(peaks, read_model(path.read_bytes(), info.mindir), path.parent)
            graph = Graph(info, reach(SealedExample.read(bundle / file_name(info)).inputs), {})
            for made in by_text:
                for i in np.unique(np.linspace(0, len(made) - 1, each).astype(int)) if made else ():
                    for layer, peak in reach(made[i]).items():
                        graph.most[layer] = max(graph.most.get(layer, 0.0), peak)
        found.append(graph)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the trained checkpoint, exported")
    parser.add_argument("--emoji", type=int, default=20, help="how many texts (default 20)")
    parser.add_argument("--calls", type=int, default=3, help="of a graph for a text that count, at most (default 3)")
    args = parser.parse_args()
    prompts = json.loads((DATA / "emoji.json").read_text())
    found = measure(args.bundle, [prompts[i * len(prompts) // args.emoji] for i in range(args.emoji)], args.calls)
    print(f"| graph | layers | in float16 | largest value of those | most growth (allowed: {MARGIN}) | of the layer |")
    print("| --- | --- | --- | --- | --- | --- |")
    for graph in found:
        top = max(graph.narrow, key=graph.growth)
        largest = max(graph.most[layer] for layer in graph.narrow)
        print(f"| {graph.info.name} batch {graph.info.batch} | {len(graph.example)} | {len(graph.narrow)} | {largest:.1f} | "
              f"{graph.growth(top):.2f} | {top} |")
    sys.exit(any(graph.most[layer] > LARGEST for graph in found for layer in graph.narrow))


if __name__ == "__main__":
    main()
