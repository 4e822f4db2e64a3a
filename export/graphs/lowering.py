"""Lower MindIR version 3, which MindSpore 2.10 writes, to the version that MindSpore Lite 2.0 reads."""

from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, NodeProto, PrimitiveProto

from ...runner.common.errors import UserError
from .node_layers import CONSTANT, REFERENCE
from .operators import OPERATORS


class LoweringError(UserError):
    """A graph holds something that cannot be carried over; names the layer, the operator and the argument."""


def lower(model: ModelProto) -> ModelProto:
    """A copy of `model` (MindIR 3) that Lite 2.0 reads; the graph and its weights stay as they are.

    Every node gets a primitive of its own, of the classic kind, whose attributes are the node's constant arguments
    as `operators.OPERATORS` describes them. Raises LoweringError for whatever is not described there.
    """
    for graph in model.functions:
        raise LoweringError(f"{graph.name}: subgraphs have no known form for Lite 2.0; use no control flow over tensors")
    lowered = ModelProto()
    lowered.CopyFrom(model)
    lowered.ClearField("mind_ir_version")
    del lowered.primitives[:]
    del lowered.graph.node[:]
    primitives = {REFERENCE + primitive.name: primitive for primitive in model.primitives}
    constants = {node.output[0]: node.attribute[0] for node in model.graph.node if node.op_type == CONSTANT}
    for index, source in enumerate(model.graph.node):
        node = NodeProto()
        node.CopyFrom(source)
        if node.op_type != CONSTANT:
            primitive = lowered.primitives.add()
            primitive.CopyFrom(primitives[node.op_type])
            primitive.name = f"{primitive.op_type}:{index}"
            node.op_type = REFERENCE + primitive.name
            _lower_node(node, primitive, constants)
        lowered.graph.node.append(node)
    return lowered


def _lower_node(node, primitive, constants):
    """Rewrite `node` and its `primitive` as their row says."""
    where = f"{node.doc_string or node.domain}: operator {primitive.op_type}"
    row = OPERATORS.get(primitive.op_type)
    if row is None:
        raise LoweringError(f"{where} has no known form for Lite 2.0")
    if row.refused:
        raise LoweringError(f"{where} is refused: {row.refused}")
    if primitive.prim_type != PrimitiveProto.PRIMITIVE_FUNCTION:
        return
    primitive.prim_type = PrimitiveProto.PRIMITIVE
    for name in node.input:
        if name in constants and _is_empty(constants[name]):
            raise LoweringError(f"{where} has an empty tuple as an argument; Lite 2.0 hangs on it: write the axes out")
    if row.arguments:
        _fold(node, primitive, constants, row, where)


def _is_empty(constant):
    return constant.type in (AttributeProto.TUPLE, AttributeProto.LIST) and not constant.values


def _fold(node, primitive, constants, row, where):
    """Move the constant arguments of `node` into attributes of `primitive`."""
    arguments = node.input[row.operands:]
    if len(arguments) != len(row.arguments):
        raise LoweringError(f"{where} has {len(arguments)} arguments; known are {', '.join(row.arguments)}")
    del node.input[row.operands:]
    for name, source in zip(row.arguments, arguments):
        if source not in constants:
            raise LoweringError(f"{where}: argument {name} is not a constant")
        attribute = primitive.attribute.add()
        attribute.CopyFrom(constants[source])
        attribute.name = name
        if name in row.enums:
            _spell(attribute, row.enums[name], where)


def _spell(attribute, names, where):
    """Replace the number of an enumeration by its name."""
    if attribute.i not in names:
        raise LoweringError(f"{where}: argument {attribute.name} has the unknown value {attribute.i}")
    attribute.s, attribute.type = names[attribute.i].encode(), AttributeProto.STRING
    attribute.ClearField("i")
