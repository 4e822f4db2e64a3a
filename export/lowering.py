"""Lower MindIR version 3, which MindSpore 2.10 writes, to the version that MindSpore Lite 2.0 reads."""

from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, NodeProto, PrimitiveProto

from ..runner.common.errors import UserError
from .node_layers import CONSTANT, REFERENCE
from .operators import OPERATORS

# MindSpore's type ids (mindspore/core/include/mindapi/base/type_id.h), which MindIR 3 writes where MindIR 1 has an
# empty tensor of TensorProto.DataType: bool, int8, int32, int64, uint8, float32.
DATA_TYPES = {30: 9, 32: 3, 34: 6, 35: 7, 37: 2, 43: 1}


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
            lowered.graph.node.extend(_lower_node(node, primitive, constants))
        lowered.graph.node.append(node)
    return lowered


def _lower_node(node, primitive, constants):
    """Rewrite `node` and its `primitive` as their row says; returns the nodes that must come before it."""
    where = f"{node.doc_string or node.domain}: operator {primitive.op_type}"
    row = OPERATORS.get(primitive.op_type)
    if row is None:
        raise LoweringError(f"{where} has no known form for Lite 2.0")
    if row.refused:
        raise LoweringError(f"{where} is refused: {row.refused}")
    if primitive.prim_type != PrimitiveProto.PRIMITIVE_FUNCTION:
        return []
    primitive.prim_type = PrimitiveProto.PRIMITIVE
    for name in node.input:
        if name in constants and _is_empty(constants[name]):
            raise LoweringError(f"{where} has an empty tuple as an argument; Lite 2.0 hangs on it: write the axes out")
    if row.arguments:
        _fold(node, primitive, constants, row, where)
    return [] if row.dtype is None else [_data_type(node, row.dtype, constants, where)]


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
        elif name in row.windows:
            one = AttributeProto(ints=[1], type=AttributeProto.INT64)
            sides = [one, one, *constants[source].values]
            del attribute.values[:]
            attribute.values.extend(sides)


def _spell(attribute, names, where):
    """Replace the number of an enumeration by its name."""
    if attribute.i not in names:
        raise LoweringError(f"{where}: argument {attribute.name} has the unknown value {attribute.i}")
    attribute.s, attribute.type = names[attribute.i].encode(), AttributeProto.STRING
    attribute.ClearField("i")


def _data_type(node, position, constants, where):
    """A constant of the node's own that states a data type as MindIR 1 does, in place of the type id."""
    source = node.input[position] if position < len(node.input) else None
    number = constants[source].i if source in constants else None
    if number not in DATA_TYPES:
        raise LoweringError(f"{where}: data type {number} has no known form for Lite 2.0")
    constant = NodeProto(name=f"{node.name}:dtype", output=[f"{node.name}:dtype"], op_type=CONSTANT)
    attribute = constant.attribute.add(name="value", type=AttributeProto.TENSORS)
    attribute.tensors.add(data_type=DATA_TYPES[number])
    node.input[position] = constant.name
    return constant
