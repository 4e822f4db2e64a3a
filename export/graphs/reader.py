"""The content of a MindIR file, read so that whoever walks the graph meets no name that stands for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from mindspore.train.mind_ir_pb2 import ModelProto, NodeProto, TensorProto

from ...runner.common.errors import UserError
from .node_layers import CONSTANT, REFERENCE, operator_of

FIRST = ("Depend", "Load")  # operators whose value is their first input


def read_model(data: bytes, where: str) -> ModelProto:
    """The model in `data`, a graph without subgraphs as export writes it; UserError names what is wrong with `where`.

    Each node has a name of its own, takes what comes before it and has a known primitive, or is a constant with a value.
    Each weight lies in a file beside the graph. Whether operators fit their operands is not looked at.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
        whole = _is_text(model)
    except (DecodeError, UnicodeDecodeError):  # its two implementations differ
        whole = False
    if not whole:
        raise UserError(f"{where} is not MindIR: it is cut or damaged; export the bundle again")
    for problem in _problems(model):
        raise UserError(f"{where}: {problem}: it is damaged; export the bundle again")
    return model


def _is_text(message: Message) -> bool:
    """Whether all strings in a message are text: protobuf hands out what is not UTF-8 as bytes."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if not all(map(_is_text, value if isinstance(value, Sequence) else [value])):
                return False
        elif field.type == FieldDescriptor.TYPE_STRING:
            if any(isinstance(text, bytes) for text in ([value] if isinstance(value, (str, bytes)) else value)):
                return False
    return True


def _problems(model: ModelProto) -> Iterator[str]:
    if model.functions:
        yield "it has subgraphs"
    graph, known = model.graph, set()
    primitives = {REFERENCE + primitive.name for primitive in model.primitives}
    if len(primitives) < len(model.primitives):
        yield "two primitives have one name"
    for value in (*graph.input, *graph.parameter):
        if value.name in known:
            yield f"two values are called {value.name!r}"
        known.add(value.name)
    for parameter in graph.parameter:
        yield from _parameter_problems(parameter)
    for node in graph.node:
        if node.name in known:
            yield f"two values are called {node.name!r}"
        yield from _node_problems(node, known, primitives)
        known.add(node.name)
    if len(graph.output) != 1 or graph.output[0].name not in known:
        yield "its output is not one of its nodes"


def _parameter_problems(parameter: TensorProto) -> Iterator[str]:
    place, dims = parameter.external_data, parameter.dims
    if PurePosixPath(place.location).name != place.location or place.location in ("", ".."):
        yield f"the weights of {parameter.name!r} lie in {place.location!r}, not beside it"
    if min(dims, default=1) < 1 or place.length != 4 * math.prod(dims) or place.offset < 0:
        yield f"the weight {parameter.name!r} of shape {tuple(dims)} has {place.length} bytes at {place.offset}"


def _node_problems(node: NodeProto, known: set[str], primitives: set[str]) -> Iterator[str]:
    if list(node.output) != [node.name]:
        yield f"the node {node.name!r} gives {list(node.output)}, not itself"
    for name in node.input:
        if name not in known:
            yield f"the node {node.name!r} takes {name!r}, which does not come before it"
    if node.op_type == CONSTANT:
        if len(node.attribute) != 1:
            yield f"the constant {node.name!r} has {len(node.attribute)} values"
    elif node.op_type not in primitives:
        yield f"the node {node.name!r} has the unknown operator {node.op_type!r}"
    elif operator_of(node) in FIRST and not node.input:
        yield f"the node {node.name!r} takes nothing"
