"""Layers in a MindIR graph: each node carries the path of the cell that it belongs to."""

from __future__ import annotations

from mindspore.train.mind_ir_pb2 import ModelProto, NodeProto

STRUCTURE = ("Constant", "Depend", "Load", "MakeTuple", "UpdateState")  # computes nothing
REFERENCE = "REF::"


def layer_of(node: NodeProto) -> str:
    """The cell's path as its parameters have it: "up_blocks.0.resnets.1.conv1"; "" for the graph's outermost cell.

    MindSpore writes "Default/up_blocks-CellList/0-UpBlock/.../conv1-Conv2d/Conv2D-op12" into `domain`; for a node that
    is an output, mindir.py moves that to `doc_string`.
    """
    cells = (node.doc_string or node.domain).split("/")[1:-1]
    return ".".join(cell.rpartition("-")[0] for cell in cells)


def operator_of(node: NodeProto) -> str:
    """The operator's name: "REF::Conv2D:12" is Conv2D."""
    return node.op_type.removeprefix(REFERENCE).partition(":")[0]


def seams(model: ModelProto) -> list[str]:
    """Names of the nodes whose value leaves their layer, in the graph's order; outputs of the graph among them."""
    nodes = {node.name: node for node in model.graph.node}
    leaving = {model.graph.output[0].name}
    for node in reversed(model.graph.node):
        for source in (nodes[name] for name in node.input if name in nodes):
            if node.name in leaving and operator_of(node) in STRUCTURE or layer_of(source) != layer_of(node):
                leaving.add(source.name)
    return [node.name for node in model.graph.node if node.name in leaving and operator_of(node) not in STRUCTURE]
