"""Lower MindIR version 3, which MindSpore 2.10 writes, to the version that MindSpore Lite 2.0 reads."""

from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, PrimitiveProto

from ..runner.errors import UserError
from .operators import OPERATORS

REFERENCE = "REF::"     # op_type of a node whose operator is described in ModelProto.primitives
CONSTANT = "Constant"


class LoweringError(UserError):
    """A graph holds something that cannot be carried over; names the operator, the argument and the layer."""


def lower(model):
    """A copy of `model` (MindIR 3) that Lite 2.0 reads; weights and graph stay as they are.

    Every node gets a primitive of its own, of the classic kind, whose attributes are the node's constant arguments
    as `operators.OPERATORS` describes them. Raises LoweringError for whatever is not described there.
    """
    if model.functions:
        raise LoweringError(f"{model.functions[0].name}: subgraphs cannot be lowered for Lite 2.0; "
                            "use no control flow over tensors")
    lowered = ModelProto()
    lowered.CopyFrom(model)
    lowered.ClearField("mind_ir_version")
    del lowered.primitives[:]
    primitives = {REFERENCE + primitive.name: primitive for primitive in model.primitives}
    constants = {node.output[0]: node.attribute[0] for node in model.graph.node if node.op_type == CONSTANT}
    for index, node in enumerate(lowered.graph.node):
        if node.op_type == CONSTANT:
            continue
        primitive = lowered.primitives.add()
        primitive.CopyFrom(primitives[node.op_type])
        primitive.name = f"{primitive.op_type}:{index}"
        node.op_type = REFERENCE + primitive.name
        _fold(node, primitive, constants)
    return lowered


def _fold(node, primitive, constants):
    """Move the constant arguments of `node` into the attributes of `primitive`."""
    name = primitive.op_type
    row = OPERATORS.get(name)
    if row is None:
        raise LoweringError(f"{node.domain}: operator {name} has no known form in MindIR for Lite 2.0")
    if row.refused:
        raise LoweringError(f"{node.domain}: operator {name} is refused: {row.refused}")
    if primitive.prim_type != PrimitiveProto.PRIMITIVE_FUNCTION:
        return
    primitive.prim_type = PrimitiveProto.PRIMITIVE
    if row.operands is None:
        return
    arguments = node.input[row.operands:]
    if len(arguments) != len(row.arguments):
        raise LoweringError(f"{node.domain}: operator {name} has {len(arguments)} arguments where "
                            f"{len(row.arguments)} are known: {', '.join(row.arguments)}")
    for argument, source in zip(row.arguments, arguments):
        where = f"{node.domain}: argument {argument} of operator {name}"
        if source not in constants:
            raise LoweringError(f"{where} is not a constant")
        attribute = primitive.attribute.add()
        attribute.CopyFrom(constants[source])
        attribute.name = argument
        if argument in row.enums:
            _spell(attribute, row.enums[argument], where)
    del node.input[row.operands:]


def _spell(attribute, names, where):
    """Replace the number of an enumeration by its name."""
    if attribute.i not in names:
        raise LoweringError(f"{where} has the unknown value {attribute.i}")
    attribute.s = names[attribute.i].encode()
    attribute.ClearField("i")
    attribute.type = AttributeProto.STRING
