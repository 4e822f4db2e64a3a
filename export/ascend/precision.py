"""Which layers of a graph for Ascend compute in float32: those whose values float16 might not hold.

A forward pass decides, that of the sealed example: what a layer takes and gives there may grow MARGIN times, with another
prompt, picture or step, before float16 overflows. Inside a norm nothing counts, since NPUs sum its squares in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto

from ...models.targets.native import Native
from ..graphs.interpreter import evaluate
from ..graphs.node_layers import STRUCTURE, layers_of, operator_of, seams

LARGEST = 65504.0  # of float16
MARGIN = 8
OF_NORMS = "Sqrt"  # the operator that a composed norm has, and no other layer


def peaks(model: ModelProto, folder: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest absolute value that each layer of a graph takes or makes, by the layer's name.

    model: the graph of the CPU target, whose layers bear the same names; folder: of its weights; inputs: by name.
    """
    layers, leaving = layers_of(model), set(seams(model))
    norms = {layers[node.name] for node in model.graph.node if operator_of(node) == OF_NORMS}
    values: dict[str, float] = {}
    found: dict[str, float] = {}
    with np.errstate(invalid="ignore"):  # what is no number is the largest of all
        for node, value in evaluate(model, folder, inputs, np.float32):
            values[node.name] = _peak(value)
            if operator_of(node) in STRUCTURE:
                continue
            layer = layers[node.name]
            counted = [name for name in node.input if layers.get(name, "") != layer]
            if layer not in norms or node.name in leaving:
                counted.append(node.name)
            for name in counted:
                found[layer] = max(found.get(layer, 0.0), values.get(name, 0.0))
    return found


def _peak(value: Any) -> float:
    """Infinite for a value that is not a number."""
    if isinstance(value, tuple):
        return max(map(_peak, value), default=0.0)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
        return 0.0
    peak = max(float(value.max()), -float(value.min()))
    return peak if np.isfinite(peak) else np.inf


def set_float16(cell: nn.Cell, peaks: Mapping[str, float]) -> list[str]:
    """Make layers compute in float16, but those whose values are too large, or that nobody knows: their names are returned."""
    wide = []
    for name, layer in cell.cells_and_names():
        if isinstance(layer, Native):
            narrow = peaks.get(name, np.inf) * MARGIN <= LARGEST
            layer.precision = mindspore.float16 if narrow else mindspore.float32
            if not narrow:
                wide.append(name)
    return wide
