"""Every tensor of a checkpoint finds its place once, under old names and new, or is named in a one-line error."""

import diffusers
import numpy as np
import pytest
import references
import torch
from damage import assert_one_line
from kandinsky_mindir.export.checkpoint import tensor_names
from kandinsky_mindir.export.checkpoint.folder import PARTS
from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles
from kandinsky_mindir.export.checkpoint.tensor_names import Source, resolve
from kandinsky_mindir.models import clip, movq, prior, unet
from safetensors.torch import save_file

CELLS = {
    "text_encoder": (clip.TextEncoder,),
    "image_encoder": (clip.ImageEncoder,),
    "prior": (prior.PriorContext, prior.Prior),
    "unet": (unet.UNetContext, unet.UNet),
    "movq": (movq.MoVQDecoder, movq.MoVQEncoder),
}
CASES = [(part, name) for part in CELLS for name in references.names(part)]


def parameter_shapes(part, module, cells=None):
    config = PARTS[part].config.from_dict(references.config_of(module))
    parameters = (parameter for cell in cells or CELLS[part] for parameter in cell(config).get_parameters())
    return {parameter.name: parameter.shape for parameter in parameters}


@pytest.mark.parametrize("part, name", CASES)
def test_what_the_reference_saves_fills_our_cells(tmp_path, part, name):
    module = references.build(part, name)
    module.save_pretrained(tmp_path)
    shapes = parameter_shapes(part, module)
    found = dict(resolve(part, shapes, TensorFiles(tmp_path, PARTS[part].stem)))
    assert list(found) == list(shapes)
    state = references.parameters_of(module)
    for parameter, array in found.items():
        np.testing.assert_array_equal(array, state[parameter])


def test_movq_decoder_alone_leaves_the_encoder_out(tmp_path):
    module = references.build("movq", "dummy")
    module.save_pretrained(tmp_path)
    shapes = parameter_shapes("movq", module, [movq.MoVQDecoder])
    names = [name for name, _ in resolve("movq", shapes, TensorFiles(tmp_path, PARTS["movq"].stem))]
    assert names == list(shapes) and not any(name.startswith("encoder.") for name in names)


def test_attention_names_of_old_diffusers(tmp_path):
    """Both sides read one file with AttentionBlock's names; diffusers' own conversion is the reference."""
    module = references.build("movq", "dummy")
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    module.save_pretrained(tmp_path)
    state = {}
    for name, tensor in module.state_dict().items():
        for old, new in tensor_names.OLD_ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
        state[name] = tensor
    # weight and bias of five attentions: the two middles, one in the encoder's last level, two in the decoder's first
    assert sum(".proj_attn." in name for name in state) == 10
    save_file(state, path)
    expected = references.parameters_of(diffusers.VQModel.from_pretrained(str(tmp_path)))
    found = dict(resolve("movq", parameter_shapes("movq", module), TensorFiles(tmp_path, PARTS["movq"].stem)))
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])

    state["decoder.mid_block.attentions.0.to_q.weight"] = state["decoder.mid_block.attentions.0.query.weight"].clone()
    save_file(state, path)
    assert_one_line("holds tensor 'decoder.mid_block.attentions.0.query.weight' and tensor "
                    "'decoder.mid_block.attentions.0.to_q.weight', which are two names for one: ",
                    lambda: resolve("movq", parameter_shapes("movq", module), TensorFiles(tmp_path, PARTS["movq"].stem)))


def as_mindone_saves(module):
    """The tensors under the names that MindSpore's cells of the same kinds give them."""
    norms, embeddings = (torch.nn.LayerNorm, torch.nn.GroupNorm), torch.nn.Embedding
    names = {f"{owner}.{name}": f"{owner}.{other}" for owner, child in module.named_modules() if isinstance(child, norms)
             for name, other in (("weight", "gamma"), ("bias", "beta"))}
    names |= {f"{owner}.weight": f"{owner}.embedding_table" for owner, child in module.named_modules()
              if isinstance(child, embeddings)}
    return {names.get(name, name): tensor for name, tensor in module.state_dict().items()}, names


@pytest.mark.parametrize("part", CELLS)
def test_names_of_mindspore(tmp_path, part):
    """The same checkpoint under the names that mindone saves; both names at once are an error that says both."""
    module = references.build(part, references.names(part)[0])
    state, names = as_mindone_saves(module)
    save_file(state, tmp_path / f"{PARTS[part].stem}.safetensors")
    shapes, expected = parameter_shapes(part, module), references.parameters_of(module)
    found = dict(resolve(part, shapes, TensorFiles(tmp_path, PARTS[part].stem)))
    assert list(found) == list(shapes) and len(names) >= 4
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])

    name = next(name for name in shapes if name in names)
    save_file(state | {name: state[names[name]].clone()}, tmp_path / f"{PARTS[part].stem}.safetensors")
    assert_one_line(f"'{names[name]}' and tensor '{name}', which are two names for one: ",
                    lambda: resolve(part, shapes, TensorFiles(tmp_path, PARTS[part].stem)))


@pytest.mark.parametrize("dtype, good", [
    (torch.float64, True), (torch.float16, True), (torch.bfloat16, True),
    (torch.int64, False), (torch.float8_e4m3fn, False), (torch.uint8, False),
])
def test_types_are_judged_before_anything_is_read(tmp_path, dtype, good):
    module = references.build("prior", "dummy")
    state = module.state_dict()
    name = "proj_in.weight"
    state[name] = state[name].to(dtype)
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    shapes, files = parameter_shapes("prior", module), TensorFiles(tmp_path, "diffusion_pytorch_model")
    if good:
        np.testing.assert_array_equal(dict(resolve("prior", shapes, files))[name], state[name].float().numpy())
    else:
        assert_one_line(f"tensor '{name}' is of type [IFU][0-9]+.*; weights must be F32, F16, BF16, F64",
                        lambda: resolve("prior", shapes, files))


@pytest.mark.parametrize("part, prefix", [("text_encoder", "text_model"), ("image_encoder", "vision_model")])
def test_position_ids_of_old_transformers_are_ignored(tmp_path, part, prefix):
    module = references.build(part, "flat")
    state = dict(module.state_dict()) | {f"{prefix}.embeddings.position_ids": torch.arange(5)[None]}
    save_file(state, tmp_path / "model.safetensors")
    shapes = parameter_shapes(part, module)
    assert [name for name, _ in resolve(part, shapes, TensorFiles(tmp_path, "model"))] == list(shapes)


class Tensors:
    """What resolve needs of TensorFiles; counts reads."""

    path = "unet/model.safetensors"

    def __init__(self, **shapes):
        self.shapes, self.types, self.reads = shapes, dict.fromkeys(shapes, "F32"), []

    def check_type(self, name):
        pass

    def read(self, name):
        self.reads.append(name)
        return np.full(self.shapes[name], len(self.reads), np.float32)


def test_one_tensor_at_a_time_in_the_order_asked_for():
    tensors = Tensors(a=(1,), b=(2,), c=(3,))
    arrays = resolve("unet", {"c": (3,), "a": (1,), "b": (2,)}, tensors)
    assert tensors.reads == []
    assert next(arrays)[0] == "c" and tensors.reads == ["c"]
    assert [name for name, _ in arrays] == ["a", "b"] and tensors.reads == ["c", "a", "b"]


@pytest.mark.parametrize("part, shapes, held, message", [
    ("unet", {"a": (1,), "b": (2,)}, {"a": (1,)}, "unet/model.safetensors lacks tensor 'b': "),
    ("unet", {"a": (1,), "b": (2,), "c": (1,)}, {"a": (1,)}, "lacks tensor 'b' and 1 more: "),
    ("unet", {"a": (1,)}, {"a": (1,), "b": (2,)}, "unet/model.safetensors holds tensor 'b', which the unet of"),
    ("unet", {"a": (1,)}, {"a": (1,), "b": (2,), "c": (1,), "d": (1,)}, "holds tensor 'b' and 2 more, which"),
    ("unet", {"a": (1, 2)}, {"a": (2, 1)}, r"tensor 'a' has shape \[2, 1\], config.json asks for \[1, 2\]"),
    ("unet", {"a": ()}, {"a": (1,)}, r"tensor 'a' has shape \[1\], config.json asks for \[\]"),
    # kernels are kept with channels last, but named as the checkpoint has them; what Winograd makes of them is not
    ("unet", {"a": (8, 3, 3, 4)}, {"a": (8, 5, 3, 3)}, r"'a' has shape \[8, 5, 3, 3\], config.json asks for \[8, 4, 3, 3\]"),
    ("unet", {"a.conv.plain_0": (4, 8, 4)}, {"a.conv.weight": (8, 4, 5, 5)},
     r"'a.conv.plain_0' has shape \[8, 4, 5, 5\], config.json asks for \[4, 8, 4\]"),
    # what may be left over in one part may not in another, nor under a longer name
    ("unet", {"a": (1,)}, {"a": (1,), "clip_mean": (1, 8)}, "holds tensor 'clip_mean'"),
    ("prior", {"a": (1,)}, {"a": (1,), "clip_mean_2": (1, 8)}, "holds tensor 'clip_mean_2'"),
    ("movq", {"encoder.a": (1,)}, {"encoder.b": (1,)}, "lacks tensor 'encoder.a'"),
])
def test_what_does_not_fit_is_named_before_anything_is_read(part, shapes, held, message):
    tensors = Tensors(**held)
    assert_one_line(message, lambda: resolve(part, shapes, tensors))
    assert tensors.reads == []


def test_a_parameter_made_of_several_tensors(monkeypatch):
    """Merged weights: the shape is known before reading, each tensor counts as used, none twice."""
    merge = Source(("q", "k", "v"), lambda *arrays: np.concatenate(arrays))
    monkeypatch.setitem(tensor_names.SOURCES, "prior", lambda names: {"qkv": merge})
    tensors = Tensors(q=(2, 3), k=(1, 3), v=(1, 3))
    assert_one_line(r"'qkv' has shape \[4, 3\]", lambda: resolve("prior", {"qkv": (3, 3)}, tensors))
    ((name, array),) = resolve("prior", {"qkv": (4, 3)}, tensors)
    assert name == "qkv" and array[:, 0].tolist() == [1, 1, 2, 3] and tensors.reads == ["q", "k", "v"]
