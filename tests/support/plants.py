"""Errors to plant in a lowered graph, as a broken converter or kernel would make them."""

from zipfile import ZipFile

import numpy as np
from kandinsky_mindir.export.graphs.node_layers import layers_of, operator_of
from kandinsky_mindir.runner.bundle.mindir_archive import NAME
from mindspore.train.mind_ir_pb2 import ModelProto


def read(path):
    return ModelProto.FromString(path.read_bytes())


class Plant:
    """Changes to a lowered graph and its weights."""

    def __init__(self, folder, graph):
        self.folder, self.path = folder, folder / graph["lite"]
        self.model, self.layers = read(self.path), layers_of(read(folder / graph["mindir"]))
        self.primitives = {f"REF::{primitive.name}": primitive for primitive in self.model.primitives}
        self.nodes = {node.name: node for node in self.model.graph.node}

    def find(self, operator, layer):
        """The first node of that operator in that layer."""
        return next(node for node in self.model.graph.node
                    if operator_of(node) == operator and self.layers[node.name] == layer)

    def attribute(self, node, name):
        return next(attribute for attribute in self.primitives[node.op_type].attribute if attribute.name == name)

    def own(self, node, position):
        """A constant operand of `node` as an array to change, copied if other nodes use it, too."""
        source = self.nodes[node.input[position]]
        constant = self.model.graph.node.add()
        constant.CopyFrom(source)
        constant.name = f"{source.name}:planted"
        constant.output[:] = [constant.name]
        node.input[position] = constant.name
        nodes = [each for each in self.model.graph.node if each.name != constant.name]
        copied = ModelProto()
        copied.graph.node.append(constant)
        del self.model.graph.node[:]
        self.model.graph.node.extend([*copied.graph.node, *nodes])
        return self.model.graph.node[0].attribute[0]

    def parameter(self, name):
        return next(parameter for parameter in self.model.graph.parameter if parameter.ref_key == name)

    def save(self):
        self.path.write_bytes(self.model.SerializeToString())


LAYER = "text_model.encoder.layers.1"
CONV = "decoder.mid_block.resnets.0.conv1"  # one that is neither a product nor a Winograd transform


def reorder_weight(plant, name, axes):
    """Write a weight in another order of its axes, as if it had the same shape."""
    parameter, weights = plant.parameter(name), plant.path.with_name("weights.bin")
    place, data = parameter.external_data, bytearray(weights.read_bytes())
    stretch = slice(place.offset, place.offset + place.length)
    array = np.frombuffer(data[stretch], "<f4").reshape(tuple(parameter.dims))
    data[stretch] = array.transpose(axes).tobytes()
    weights.unlink()
    weights.write_bytes(data)


def transposed_weight(plant):
    reorder_weight(plant, f"{LAYER}.self_attn.k_proj.weight", (1, 0))


def neighbours_weight(plant):
    ours, other = (plant.parameter(f"{LAYER}.self_attn.{name}.weight") for name in ("q_proj", "v_proj"))
    ours.external_data.offset = other.external_data.offset


def missing_transpose_b(plant):
    primitive = plant.primitives[plant.find("MatMul", f"{LAYER}.self_attn.v_proj").op_type]
    primitive.attribute.remove(plant.attribute(plant.find("MatMul", f"{LAYER}.self_attn.v_proj"), "transpose_b"))


def wrong_epsilon(plant):
    norm = plant.find("Add", f"{LAYER}.layer_norm1")
    plant.own(norm, 1).tensors[0].raw_data = np.float32(1e-4).tobytes()  # 1e-5


def axis_off_by_one(plant):
    plant.own(plant.find("ReduceMean", f"{LAYER}.layer_norm2"), 1).values[0].ints[0] = -2


def swapped_inputs(plant):
    node = plant.find("Sub", f"{LAYER}.layer_norm2")
    node.input[:] = reversed(node.input)


def dropped_bias(plant):
    node = plant.find("BiasAdd", f"{LAYER}.mlp.fc1")
    for user in plant.model.graph.node:
        user.input[:] = [node.input[0] if name == node.name else name for name in user.input]


def scaled_constant(plant):
    tensor = plant.own(plant.find("Mul", f"{LAYER}.mlp.fc1"), 1).tensors[0]
    tensor.raw_data = (np.frombuffer(tensor.raw_data, "<f4") * np.float32(1.7 / 1.702)).tobytes()  # quick GELU


def wrong_softmax_axis(plant):
    plant.attribute(plant.find("Softmax", f"{LAYER}.self_attn.attention"), "axis").values[0].ints[0] = -2


def wrong_permutation(plant):
    values = plant.own(plant.find("Transpose", f"{LAYER}.self_attn.attention"), 1).values
    values[1].ints[0], values[3].ints[0] = values[3].ints[0], values[1].ints[0]


def other_activation(plant):
    plant.primitives[plant.find("Sigmoid", f"{LAYER}.mlp.fc1").op_type].op_type = "Tanh"


def shifted_padding(plant):
    for name in ("pad", "pad_list"):
        for value, side in zip(plant.attribute(plant.find("Conv2D", CONV), name).values, (2, 0, 1, 1)):
            value.ints[0] = side


def channels_first(plant):
    """NCHW for NHWC: the weight's channels before its pixels."""
    reorder_weight(plant, "vision_model.embeddings.patch_embedding.weight", (0, 3, 1, 2))


TEXT, IMAGE, MOVQ = "text_encoder", "image_encoder", "movq_decoder"
PLANTS = [
    # the graph, what is done to it, the layer that --bisect must name
    (TEXT, transposed_weight, f"{LAYER}.self_attn.k_proj"),
    (TEXT, neighbours_weight, f"{LAYER}.self_attn.q_proj"),
    (TEXT, missing_transpose_b, f"{LAYER}.self_attn.v_proj"),
    (TEXT, wrong_epsilon, f"{LAYER}.layer_norm1"),
    (TEXT, axis_off_by_one, f"{LAYER}.layer_norm2"),
    (TEXT, swapped_inputs, f"{LAYER}.layer_norm2"),
    (TEXT, dropped_bias, f"{LAYER}.mlp.fc1"),
    (TEXT, scaled_constant, f"{LAYER}.mlp.fc1"),
    (TEXT, wrong_softmax_axis, f"{LAYER}.self_attn.attention"),
    (TEXT, wrong_permutation, f"{LAYER}.self_attn.attention"),
    (TEXT, other_activation, f"{LAYER}.mlp.fc1"),
    (MOVQ, shifted_padding, CONV),
    (IMAGE, channels_first, "vision_model.embeddings.patch_embedding"),
]


def unpack(part):
    """Undo `pack` in the folder of a part."""
    with ZipFile(part / NAME) as file:
        file.extractall(part)
    (part / NAME).unlink()
