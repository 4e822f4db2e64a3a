"""Find the layer where a lowered graph first goes wrong: run it cut open, hold every layer to its sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, NodeProto, PrimitiveProto

from ..runner.bundle.manifest import GraphInfo
from ..runner.bundle.opened import Bundle
from ..runner.bundle.sealed_examples import SealedExample
from ..runner.common.errors import UserError
from ..runner.engine import Engine, EngineError, LiteModel
from ..runner.upkeep.replay import read_example
from .graphs.node_layers import REFERENCE, layers_of, operator_of
from .graphs.reader import read_model

WIDTH = 32  # layers that are looked at in one run; each run loads the graph once


def bisect(bundle: Bundle, graph: GraphInfo, engine: Engine) -> str:
    """A line that names the first wrong layer of a graph, or says that all are right. Runs on the CPU.

    A layer is wrong if what leaves it is off by more than rounding explains; it is the first one if all that it was
    made from is right. UserError if the bundle has no sealed example.
    """
    model = read_model(bundle.mindir(graph.lite), graph.lite)
    nodes = {node.name: node for node in model.graph.node}
    example = read_example(bundle, graph)
    unknown = [name for name in example.layers if name in nodes]  # in the graph's order
    first, error = None, 0.0
    with bundle.unpacked(graph, graph.lite) as path:
        while unknown:
            errors = _errors(model, example, _spread(unknown), path, engine)
            wrong = next((name for name in errors if errors[name] > example.layers[name].bound), None)
            if wrong:
                first, error = nodes[wrong], errors[wrong]
                before = _upstream([wrong], nodes) - {wrong}
                unknown = [name for name in unknown if name in before]
            # What was made right was made from what is right.
            right = _upstream((name for name in errors if errors[name] <= example.layers[name].bound), nodes)
            unknown = [name for name in unknown if name not in right]
    if first is None:
        return f"every layer of {graph.lite} is right by itself: what is wrong is how Lite puts them together"
    what = f"relative error {error:.1e}" if math.isfinite(error) else "it does not run or is not finite"
    original = read_model(bundle.mindir(graph.mindir), graph.mindir)
    layer = layers_of(original).get(first.name) or "the graph's outermost layer"
    return f"first wrong in {layer} (up to its {operator_of(first)}): {what}; all that it is made from is right"


def cut(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The graph with the values of the nodes `names` as its outputs, in that order."""
    result = ModelProto()
    result.CopyFrom(model)
    nodes = {node.name: node for node in result.graph.node}
    name = f"{result.graph.name}:cut"  # Lite wants the graph's name before the colon
    result.primitives.add(name="MakeTuple:cut", op_type="MakeTuple", prim_type=PrimitiveProto.PRIMITIVE)
    output = result.graph.output[0]
    output.Clear()
    output.name, output.denotation, output.attr_info.type = name, "Tuple", AttributeProto.TUPLE
    for source in names:
        shapes = [tensor for attribute in nodes[source].attribute if attribute.name == "shape" for tensor in attribute.tensors]
        if len(shapes) != 1:
            raise UserError(f"{source}, {nodes[source].domain}, has no shape: it is damaged; export the bundle again")
        output.attr_info.values.add(type=AttributeProto.TENSORS).tensors.append(shapes[0])
    node = result.graph.node.add(
        name=name, op_type=f"{REFERENCE}MakeTuple:cut", domain="Default/MakeTuple-cut", input=names, output=[name]
    )
    node.attribute.add().CopyFrom(output.attr_info)
    node.attribute[0].name = "shape"
    return result


def _taken(inputs: dict[str, np.ndarray], lite: LiteModel) -> list[np.ndarray]:
    """The inputs as Lite takes them. Of a picture that a cut graph transposes first, Lite makes the transposed one its
    input, under that node's name."""
    names = {tensor.name for tensor in lite.inputs}
    rest = [array for name, array in inputs.items() if name not in names]
    arrays = [inputs[tensor.name] if tensor.name in inputs else rest.pop() for tensor in lite.inputs]
    return [array if array.shape == tensor.shape else np.ascontiguousarray(array.transpose(0, 2, 3, 1))
            for array, tensor in zip(arrays, lite.inputs)]


def _errors(model: ModelProto, example: SealedExample, names: Sequence[str], path: Path, engine: Engine) -> dict[str, float]:
    """The relative error of each node of `names`, infinite where Lite refuses; none for those behind a refused one."""
    path.write_bytes(cut(model, names).SerializeToString())
    try:
        lite = engine.load(path)
        try:
            outputs = lite.run(_taken(example.inputs, lite))
        finally:
            lite.close()
    except EngineError:
        if len(names) == 1:
            return {names[0]: math.inf}
        middle = len(names) // 2
        errors = _errors(model, example, names[:middle], path, engine)
        if math.inf not in errors.values():
            errors |= _errors(model, example, names[middle:], path, engine)
        return errors
    return {name: example.layers[name].relative_error(output) for name, output in zip(names, outputs, strict=True)}


def _spread(names: Sequence[str]) -> list[str]:
    """At most WIDTH of `names`, evenly, the last among them."""
    step = math.ceil(len(names) / WIDTH)
    return list(names[::-1][::step][::-1])


def _upstream(names: Iterable[str], nodes: dict[str, NodeProto]) -> set[str]:
    """`names` and all nodes that they are made from."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found.add(name)
            waiting.extend(nodes[name].input)
    return found
