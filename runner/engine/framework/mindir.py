"""Inputs and outputs of a MindIR graph: names, shapes and types, out of MindSpore's protobuf message.

Nothing of MindSpore is imported here: a message is read by the names of its fields (mindspore/train/mind_ir.proto).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindspore.train.mind_ir_pb2 import ModelProto, NodeProto, TensorProto

REFERENCE = "REF::"  # before the name of a node's operator among ModelProto.primitives


def output_tensors(model: ModelProto) -> list[TensorProto]:
    """Type and shape of each output of a graph."""
    (output,) = model.graph.output
    return list(output.tensor) or [value.tensors[0] for value in output.attr_info.values]


def output_nodes(model: ModelProto) -> list[NodeProto | None]:
    """The node that computes each output of the graph; None for an input or a weight that is handed through."""
    nodes = {node.name: node for node in model.graph.node}
    operators = {REFERENCE + primitive.name: primitive.op_type for primitive in model.primitives}
    node = nodes.get(model.graph.output[0].name)
    while node and operators.get(node.op_type) == "Depend":  # the value, and what must have happened before
        node = nodes.get(node.input[0])
    if node and operators.get(node.op_type) == "MakeTuple":
        return [nodes.get(name) for name in node.input]
    return [node]


def inputs_of(model: ModelProto) -> list[tuple[str, TensorProto]]:
    """Each input of a graph: its name, as the exporter gave it, and its type and shape."""
    return [(value.name.rpartition(":")[2], value.tensor[0]) for value in model.graph.input]


def outputs_of(model: ModelProto) -> list[tuple[str, TensorProto]]:
    """The same of each output. The exporter leaves its name where MindSpore has the layer of the node."""
    names = [node.domain if node else "" for node in output_nodes(model)]
    return list(zip(names, output_tensors(model)))
