"""Layers in a MindIR graph: which cell of the model each node belongs to."""

from __future__ import annotations

from mindspore.train.mind_ir_pb2 import ModelProto, NodeProto

from ...runner.engine.framework.mindir import REFERENCE

CONSTANT = "Constant"  # a node without an operator
STRUCTURE = (CONSTANT, "Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState")  # computes nothing

# MindSpore writes the path of a node's cell into `domain`, but only operators that a cell holds have one of their own:
# functions (+, *, reshape, ...) are compiled once for each shape and keep the path of the first cell that used them.
HELD = ("AvgPool", "BatchMatMul", "BiasAdd", "Conv2D", "MatMul", "ReduceMean", "Softmax")


def layers_of(model: ModelProto) -> dict[str, str]:
    """The layer of each node, by name, as parameters have it: "up_blocks.0.resnets.1.conv1".

    Operators that a cell holds and weights say it themselves, every other node is with the latest of its inputs;
    "" is what depends on none of those.
    """
    layers = {parameter.name: parameter.ref_key.rpartition(".")[0] for parameter in model.graph.parameter}
    place: dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        if operator_of(node) == "Load":
            layers[node.name] = layers.get(node.input[0], "")
        elif operator_of(node) in HELD:
            layers[node.name] = _cell(node)
        else:
            known = [name for name in node.input if layers.get(name)]
            layers[node.name] = layers[max(known, key=lambda name: place.get(name, -1))] if known else ""
        place[node.name] = index
    return layers


def operator_of(node: NodeProto) -> str:
    """The operator's name: "REF::Conv2D:12" is Conv2D."""
    return node.op_type.removeprefix(REFERENCE).partition(":")[0]


def seams(model: ModelProto) -> list[str]:
    """Names of the nodes whose value leaves their layer, in the graph's order; outputs of the graph among them."""
    nodes, layers = {node.name: node for node in model.graph.node}, layers_of(model)
    leaving = {model.graph.output[0].name}
    for node in reversed(model.graph.node):
        for source in (name for name in node.input if name in nodes):
            if (node.name in leaving and operator_of(node) in STRUCTURE) or layers[source] != layers[node.name]:
                leaving.add(source)
    return [node.name for node in model.graph.node if node.name in leaving and operator_of(node) not in STRUCTURE]


def _cell(node: NodeProto) -> str:
    """ "Default/up_blocks-CellList/0-UpBlock/.../conv1-Conv2d/Conv2D-op12" without classes and operator."""
    path = node.doc_string or node.domain  # where mindir.py leaves it for an output
    return ".".join(cell.rpartition("-")[0] for cell in path.split("/")[1:-1])
