"""Graphs with nodes of our own: written, run, and counted by the code that finds them, in a program under sanitizers."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import small_graph
from kandinsky_mindir.runner import engine as engines
from kandinsky_mindir.runner.engine import runtime
from kandinsky_mindir.runner.engine.bridge import BridgeEngine
from kandinsky_mindir.runner.engine.compiler import find_compiler
from kandinsky_mindir.runner.engine.precision import lacking, lacking_own_float32

PROGRAM = r"""
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>
#include "attention_fusion.h"
#include "gelu_fusion.h"
#include "layer_norm_fusion.h"
#include "model_graph.h"
#include "norm_fusion.h"
#include "winograd_fusion.h"

int main(int, char **argv) {
  std::ifstream file(argv[1], std::ios::binary);
  std::vector<char> data((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::size_t size = data.size();
  data.resize(size + ModelGraph::kRoom);
  ModelGraph graph(data.data(), size);
  const std::size_t before = graph.order().size();
  const int convolutions = WinogradFusion::Apply(&graph), attentions = AttentionFusion::Apply(&graph);
  GeluFusion::Apply(&graph);
  LayerNormFusion::Apply(&graph);
  NormFusion::Apply(&graph);
  graph.Sweep();
  const ModelGraph again(data.data(), size);  // as Lite will read it
  int ours = 0;
  for (const auto number : again.order()) ours += again.node(number).type == 191;
  std::printf("%d %d %d %zu %zu\n", convolutions, attentions, ours, before, again.order().size());
}
"""


def build(folder):
    """The program, compiled in an empty folder."""
    (folder / "main.cc").write_text(PROGRAM)
    headers = Path(engines.__file__).parent / "native"
    command = [*find_compiler(), "-std=c++17", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover",
               f"-I{headers}", "main.cc", "-o", "count"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    return folder / "count"


def count(program, ms):
    """(Convolutions found, attentions found, nodes of our own then, nodes before, nodes after)."""
    result = subprocess.run([program, ms], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return tuple(map(int, result.stdout.split()))


def written(folder, engine, cell, inputs):
    """The `.ms` file of a cell that takes such inputs, in an empty folder."""
    small_graph.write(folder, cell, lambda: inputs)
    engine.convert(folder / "lowered.mindir", folder / "graph.ms")
    return folder / "graph.ms"


def precisions():
    """Those that kernels of ours compute in here; the test is skipped where there is none."""
    reasons = {"float32": lacking_own_float32(), "bfloat16": lacking()}
    if all(reasons.values()):
        pytest.skip("; ".join(reasons.values()))
    return [precision for precision, reason in reasons.items() if not reason]


def run(ms, inputs, precision, threads, kernels="own"):
    """The first output of a model."""
    with loaded(ms, precision, threads, kernels) as model:
        return model.run(inputs)[0]


def loaded(ms, precision, threads, kernels="own"):
    """A model that such kernels compute: "own" or "lite"."""
    if kernels == "own":
        runtime.ensure_onednn()
    return BridgeEngine(precision=precision, kernels=kernels).load(ms, threads=threads)


def rounded(array):
    """To bfloat16 and back, to the nearest, to even where two are as near."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
