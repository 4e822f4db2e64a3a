"""A graph in pieces that run one after another: Lite's own format holds no more than 2 GB of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from mindspore.train.mind_ir_pb2 import AttributeProto, GraphProto, ModelProto, NodeProto, PrimitiveProto, TensorProto

from ...runner.engine.framework.mindir import output_nodes
from .mindir import GRAPH
from .node_layers import CONSTANT, REFERENCE

RESHAPE, TUPLE = "Reshape", "MakeTuple"
PIECE = 2**50  # bytes: what a further piece may save of those handed over, that is, nothing
UNCUT = PIECE // 2**10  # where no cut may be


def cut(model: ModelProto, limit: int) -> list[ModelProto]:
    """`model` (MindIR 3) in pieces of at most `limit` bytes of weights, in order of execution.

    As few pieces as the limit allows, cut where the fewest bytes have to be handed over, and where that is the same, into
    pieces of about the same size. An output of a piece is the graph's, or is taken as an input of the same name by pieces
    after it (runner/engine/chain.py). A piece is larger than the limit only if it is one node, or shares weights.
    """
    leaves, outputs = _leaves(model), output_nodes(model)
    body = _body(model, outputs, leaves)
    place = {node.name: index for index, node in enumerate(body)}
    last_use = {name: index for index, node in enumerate(body) for name in node.input if name in place}
    bounds = _bounds(_weights(model, body, leaves), _crossing(body, place, last_use), limit)
    ends = {node.name: end for start, end in pairwise(bounds) for node in body[start:end]}
    names = {node.name: f"cut_{index}" for index, node in enumerate(body) if last_use.get(node.name, -1) >= ends[node.name]}
    names |= {node.name: node.domain for node in outputs if node}
    if len(bounds) == 2:
        return [model]
    return [_piece(model, body[start:end], leaves, names) for start, end in pairwise(bounds)]


def _leaves(model: ModelProto) -> dict[str, NodeProto]:
    """The nodes that depend on no input of the graph: every piece has those that it uses."""
    leaves = {parameter.name: None for parameter in model.graph.parameter}
    for node in model.graph.node:
        if all(name in leaves for name in node.input):
            leaves[node.name] = node
    return {name: node for name, node in leaves.items() if node}


def _sources(node: NodeProto, leaves: dict[str, NodeProto]) -> Iterator[str]:
    """Names of the leaves and weights that a node depends on."""
    for name in node.input:
        if name in leaves:
            yield from _sources(leaves[name], leaves)
        yield name


def _body(model: ModelProto, outputs: Sequence[NodeProto], leaves: dict[str, NodeProto]) -> list[NodeProto]:
    """The nodes that compute something for the outputs, in the graph's order."""
    needed = {node.name for node in outputs}
    for node in reversed(model.graph.node):
        if node.name in needed:
            needed.update(node.input)
    return [node for node in model.graph.node if node.name in needed and node.name not in leaves]


def _weights(model: ModelProto, body: Sequence[NodeProto], leaves: dict[str, NodeProto]) -> np.ndarray:
    """Bytes of the weights that each node is the first to use."""
    left = {parameter.name: parameter.external_data.length for parameter in model.graph.parameter}
    return np.array([sum(left.pop(name, 0) for name in _sources(node, leaves)) for node in body], np.int64)


def _crossing(body: Sequence[NodeProto], place: dict[str, int], last_use: dict[str, int]) -> np.ndarray:
    """Bytes handed over by a cut before each node."""
    change = np.zeros(len(body) + 1, np.int64)
    for name, last in last_use.items():
        size = sum(4 * math.prod(tensor.dims) for tensor in _tensors(body[place[name]]))
        change[place[name] + 1] += size or UNCUT
        change[last + 1] -= size or UNCUT
    return np.cumsum(change)


def _tensors(node: NodeProto) -> list[TensorProto]:
    """Type and shape of the node's value; empty for a tuple, which cannot be handed over."""
    return next((list(attribute.tensors) for attribute in node.attribute if attribute.name == "shape"), [])


def _dims(node: NodeProto) -> tuple[int, ...]:
    (tensor,) = _tensors(node)
    return tuple(tensor.dims)


def _flat(dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a tensor is handed over: Lite takes inputs of four axes for pictures, with channels first."""
    return dims if len(dims) < 4 else (dims[0], math.prod(dims[1:]))


def _bounds(weights: np.ndarray, crossing: np.ndarray, limit: int) -> list[int]:
    """Where the pieces of a sequence of nodes start, and its end: the shortest path, by (cost, unevenness)."""
    total = np.concatenate(([0], np.cumsum(weights)))
    cost, uneven, previous = np.zeros(total.size, np.int64), np.zeros(total.size), np.zeros(total.size, np.intp)
    for end in range(1, total.size):
        first = min(int(np.searchsorted(total, total[end] - limit)), end - 1)
        costs = cost[first:end] + crossing[first:end] + PIECE
        starts = first + np.flatnonzero(costs == costs.min())
        sums = uneven[starts] + np.square(total[end] - total[starts], dtype=float)
        cost[end], uneven[end], previous[end] = costs.min(), sums.min(), starts[sums.argmin()]
    bounds = [total.size - 1]
    while bounds[0]:
        bounds.insert(0, int(previous[bounds[0]]))
    return bounds


def _piece(
    model: ModelProto, body: Sequence[NodeProto], leaves: dict[str, NodeProto], names: dict[str, str]
) -> ModelProto:
    """A piece as a graph. names: of the tensors that leave a piece, by the node that computes them."""
    piece = ModelProto()
    piece.CopyFrom(model)
    piece.primitives.extend(PrimitiveProto(name=name, op_type=name, prim_type=PrimitiveProto.PRIMITIVE)
                            for name in (RESHAPE, TUPLE))
    graph = piece.graph
    for field in ("node", "input", "output", "parameter"):
        graph.ClearField(field)
    inside = {node.name for node in body}
    used = {name for node in body for name in _sources(node, leaves)} - inside
    graph.input.extend(value for value in model.graph.input if value.name in used)
    graph.parameter.extend(value for value in model.graph.parameter if value.name in used)
    given = {node.name: _dims(node) for node in model.graph.node if node.name in used and node.name not in leaves}
    for name, dims in given.items():
        graph.input.add(name=f"{GRAPH}:{names[name]}").tensor.add(dims=_flat(dims), data_type=TensorProto.FLOAT)
    graph.node.extend(leaf for name, leaf in leaves.items() if name in used)
    for name, dims in given.items():
        if dims != _flat(dims):
            _reshape(graph, f"{GRAPH}:{names[name]}", name, dims)
    graph.node.extend(body)
    for node in graph.node:
        node.input[:] = [f"{GRAPH}:{names[name]}" if name in given and given[name] == _flat(given[name]) else name
                         for name in node.input]
    leaving = []
    for node in graph.node[-len(body):]:
        if node.name in names:
            if not node.doc_string:  # it is no output of the whole
                name = names[node.name]
                if _dims(node) != _flat(_dims(node)):
                    node = _reshape(graph, node.name, f"{node.name}:flat", _flat(_dims(node)))
                node.doc_string, node.domain = node.domain, name
            leaving.append(node)
    _give(piece, leaving)
    return piece


def _reshape(graph: GraphProto, source: str, name: str, dims: tuple[int, ...]) -> NodeProto:
    """Add a node that gives the value of `source` another shape."""
    sides = [AttributeProto(ints=[side], type=AttributeProto.INT64) for side in dims]
    shape = graph.node.add(name=f"{name}:shape", output=[f"{name}:shape"], op_type=CONSTANT)
    shape.attribute.add(name="value", type=AttributeProto.TUPLE, values=sides)
    node = graph.node.add(name=name, output=[name], op_type=f"{REFERENCE}{RESHAPE}", input=[source, shape.name],
                          domain=f"Default/{name}/{RESHAPE}")
    tensors = [TensorProto(dims=dims, data_type=TensorProto.FLOAT)]
    node.attribute.add(name="shape", type=AttributeProto.TENSORS, tensors=tensors)
    return node


def _give(piece: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Make the values of `nodes` the outputs of a graph."""
    if len(nodes) == 1:
        piece.graph.output.add(name=nodes[0].name, tensor=_tensors(nodes[0]))
        return
    values = [AttributeProto(tensors=_tensors(node), type=AttributeProto.TENSORS) for node in nodes]
    kind = AttributeProto(name="shape", type=AttributeProto.TUPLE, values=values)
    together = piece.graph.node.add(
        name=f"{GRAPH}:outputs", op_type=f"{REFERENCE}{TUPLE}", output=[f"{GRAPH}:outputs"],
        input=[node.name for node in nodes], attribute=[kind],
    )  # fmt: skip
    piece.graph.output.add(name=together.name, denotation="Tuple", attr_info=kind)
