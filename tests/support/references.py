"""The reference implementations that the models are held against: diffusers and transformers modules on torch.

`CONFIGURATIONS` has small configurations of every part that differ in width, depth, heads, levels and sizes ("dummy"
is that of diffusers' own Kandinsky 2.2 tests); "micro" is the trained checkpoint. Random weights leave nothing at its
initial zero or one, so that no forgotten scale, bias or embedding can hide.
"""

import json
import math
from pathlib import Path

import mindspore
import numpy as np
import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

MICRO = Path(__file__).resolve().parents[2] / "artifacts" / "micro"

_CLASSES = {
    "text_encoder": (CLIPTextModelWithProjection, MICRO / "prior" / "text_encoder"),
    "image_encoder": (CLIPVisionModelWithProjection, MICRO / "prior" / "image_encoder"),
    "prior": (PriorTransformer, MICRO / "prior" / "prior"),
    "unet": (UNet2DConditionModel, MICRO / "decoder" / "unet"),
    "movq": (VQModel, MICRO / "decoder" / "movq"),
}

_UNET = {
    "in_channels": 4, "out_channels": 8, "addition_embed_type": "image", "encoder_hid_dim_type": "image_proj",
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "resnet_time_scale_shift": "scale_shift",
}
_DOWN_ATTENTION, _UP_ATTENTION = "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D"
_DOWN, _UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"

_MOVQ = {"norm_type": "spatial", "latent_channels": 4}

CONFIGURATIONS = {
    "text_encoder": {
        "dummy": dict(hidden_size=32, projection_dim=32, num_hidden_layers=5, num_attention_heads=4,
                      intermediate_size=37, vocab_size=1000, bos_token_id=0, eos_token_id=2),
        "wide": dict(hidden_size=72, projection_dim=40, num_hidden_layers=2, num_attention_heads=6,
                     intermediate_size=160, vocab_size=130, bos_token_id=128, eos_token_id=129,
                     hidden_act="gelu", layer_norm_eps=1e-6),
        "flat": dict(hidden_size=16, projection_dim=24, num_hidden_layers=1, num_attention_heads=1,
                     intermediate_size=64, vocab_size=60, bos_token_id=6, eos_token_id=7),
    },
    "image_encoder": {
        "dummy": dict(hidden_size=32, projection_dim=32, num_hidden_layers=5, num_attention_heads=4,
                      intermediate_size=37, image_size=224, patch_size=14),
        "border": dict(hidden_size=48, projection_dim=20, num_hidden_layers=2, num_attention_heads=6,
                       intermediate_size=100, image_size=31, patch_size=7, hidden_act="gelu", layer_norm_eps=1e-6),
        "flat": dict(hidden_size=16, projection_dim=24, num_hidden_layers=1, num_attention_heads=1,
                     intermediate_size=64, image_size=32, patch_size=16),
    },
    "prior": {
        "dummy": dict(num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1),
        "wide": dict(num_attention_heads=5, attention_head_dim=16, embedding_dim=48, num_layers=3, time_embed_dim=56,
                     embedding_proj_dim=40, clip_embed_dim=48, time_embed_act_fn="gelu"),
        "deep": dict(num_attention_heads=1, attention_head_dim=32, embedding_dim=20, num_layers=4, num_embeddings=9),
    },
    "unet": {
        "dummy": _UNET | dict(
            block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=4, cross_attention_dim=32,
            encoder_hid_dim=32, down_block_types=(_DOWN, _DOWN_ATTENTION), up_block_types=(_UP_ATTENTION, _UP)),
        "levels": _UNET | dict(
            block_out_channels=(16, 32, 48, 64), layers_per_block=2, attention_head_dim=16, cross_attention_dim=24,
            encoder_hid_dim=40, norm_num_groups=8, norm_eps=1e-6, down_block_types=(_DOWN,) + (_DOWN_ATTENTION,) * 3,
            up_block_types=(_UP_ATTENTION,) * 3 + (_UP,)),
        "shift": _UNET | dict(
            in_channels=9, out_channels=4, block_out_channels=(24, 24, 40), layers_per_block=1, attention_head_dim=8,
            cross_attention_dim=16, encoder_hid_dim=20, norm_num_groups=4, resnet_time_scale_shift="default",
            flip_sin_to_cos=False, freq_shift=1, down_block_types=(_DOWN_ATTENTION, _DOWN, _DOWN_ATTENTION),
            up_block_types=(_UP_ATTENTION, _UP, _UP_ATTENTION)),
    },
    "movq": {
        "dummy": _MOVQ | dict(
            block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, num_vq_embeddings=12, vq_embed_dim=4,
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D")),
        "levels": _MOVQ | dict(
            block_out_channels=(32, 64, 64, 96), layers_per_block=2, norm_num_groups=32, num_vq_embeddings=20,
            down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3),
        "plain": _MOVQ | dict(
            block_out_channels=(32, 32), layers_per_block=1, norm_num_groups=16, num_vq_embeddings=8, vq_embed_dim=3,
            latent_channels=3, mid_block_add_attention=False, down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2),
    },
}
"""part -> name -> arguments of the reference's constructor."""


def names(part):
    """The names that `build` knows for `part`, the trained checkpoint included."""
    return [*CONFIGURATIONS[part], "micro"]


def build(part, name):
    """The reference module in evaluation mode: random weights (seeded by the name), or the trained ones of "micro"."""
    if name == "micro":
        return micro(part)
    options = CONFIGURATIONS[part][name]
    if part == "text_encoder":
        module = CLIPTextModelWithProjection(CLIPTextConfig(**options))
    elif part == "image_encoder":
        module = CLIPVisionModelWithProjection(CLIPVisionConfig(**options))
    else:
        module = _CLASSES[part][0](**options)
    randomize(module, seed=sum(name.encode()))
    return module.eval().requires_grad_(False)


def micro(part):
    """The trained checkpoint's module in evaluation mode, float32."""
    cls, folder = _CLASSES[part]
    return cls.from_pretrained(str(folder), torch_dtype=torch.float32).eval().requires_grad_(False)


@torch.no_grad()
def randomize(module, seed):
    """Random weights that keep activations of order one through any depth and touch every parameter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        leaf = name.rsplit(".", 1)[-1]
        if "embedding.weight" in name or (parameter.ndim == 1 and "norm" not in name) or leaf.endswith("embedding"):
            parameter.copy_(noise * 0.3)  # embeddings and biases
        elif leaf == "clip_std" or (parameter.ndim == 1 and leaf == "weight"):
            parameter.copy_(1 + noise * 0.2)  # scales
        elif parameter.ndim == 1 or leaf == "clip_mean":
            parameter.copy_(noise * 0.2)  # shifts
        else:
            parameter.copy_(noise / math.sqrt(parameter[0].numel()))


def config_of(module):
    """The ``config.json`` that the reference saves with `module`, as a dictionary."""
    config = getattr(module.config, "to_json_string", None) or module.to_json_string
    return json.loads(config())


def arrays_of(module):
    """tensor name -> float32 array, as in the reference's safetensors file."""
    return {name: tensor.detach().float().numpy() for name, tensor in module.state_dict().items()}


def parameters_of(module, target="cpu"):
    """tensor name -> float32 array, as our cells take it: a kernel's channels come last, or it has a name of its own."""
    arrays = arrays_of(module)
    if target == "ascend":
        return {name.removesuffix("weight") + "kernel" if array.ndim == 4 else name: array for name, array in arrays.items()}
    return {name: np.moveaxis(array, 1, 3) if array.ndim == 4 else array for name, array in arrays.items()}


def cases(part):
    """(name, target), for tests of cells: one or two, and with -m slow all for the CPU, and the random ones for Ascend.

    test_lite_graphs.py holds all to the same reference, as graphs that are compiled once.
    """
    rows = [*((name, "cpu") for name in names(part)), *((name, "ascend") for name in CONFIGURATIONS[part])]
    quick = (rows[0], ("dummy", "ascend") if part == "image_encoder" else None)  # which has a convolution, and attention
    return pytest.mark.parametrize("name, target", [row if row in quick else pytest.param(*row, marks=pytest.mark.slow)
                                                    for row in rows])


def load_weights(cell, arrays):
    """Set every parameter of `cell` from the array of its own name; returns the names that no parameter took."""
    left = dict(arrays)
    for name, parameter in cell.parameters_and_names():
        assert name in left, f"{type(cell).__name__}: no array for parameter {name}"
        array = left.pop(name)
        assert array.shape == parameter.shape, f"{name}: array of {array.shape}, parameter of {parameter.shape}"
        parameter.set_data(mindspore.Tensor(np.ascontiguousarray(array)))
    return set(left)


def relative_error(actual, expected):
    """Relative L2 error of `actual`, with float64 sums."""
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    assert actual.shape == expected.shape, f"shape {actual.shape} instead of {expected.shape}"
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)
