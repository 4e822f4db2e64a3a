"""LoRAs for the tests: random ones for modules of a part, in every spelling, and what a merge by hand makes of them."""

import json

import numpy as np
import torch
from safetensors.torch import save_file

LAYERS = {"unet": ["to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"], "prior": ["to_q", "to_k", "to_v", "to_out.0"]}
RANK = 3


def modules(reference, part):
    """The attention layers of a reference module, by name: what trainers of Kandinsky 2.2 train."""
    return [name for name, module in reference.named_modules()
            if isinstance(module, torch.nn.Linear) and name.endswith(tuple(LAYERS[part]))]


def lora(reference, names, rank=RANK, seed=0):
    """module -> (down, up), float32, of linear layers and convolutions."""
    generator, found = torch.Generator().manual_seed(seed), {}
    weights = dict(reference.named_parameters())
    for name in names:
        out, taken, *window = weights[f"{name}.weight"].shape
        down = torch.randn((rank, taken, *window), generator=generator) / rank
        up = torch.randn((out, rank, *(1 for _ in window)), generator=generator) * 0.2
        found[name] = down, up
    return found


def by_hand(weight, down, up, factor):
    """W + factor * up @ down in float64, rounded once."""
    product = np.einsum("or,r...->o...", up.double().numpy().reshape(len(up), -1), down.double().numpy())
    return (weight.double().numpy() + factor * product).astype(np.float32)


def _sides(pairs, down, up):
    return {f"{name}{side}": tensor for name, pair in pairs.items() for side, tensor in zip((down, up), pair)}


def _old(pairs):
    found = {}
    for name, pair in pairs.items():
        owner, _, layer = name.removesuffix(".0").rpartition(".")
        found |= {f"{owner}.processor.{layer}_lora.{side}.weight": tensor for side, tensor in zip(("down", "up"), pair)}
    return found


def _kohya(part, pairs):
    flat = {f"lora_{part}_{name.replace('.', '_')}": pair for name, pair in pairs.items()}
    return _sides(flat, ".lora_down.weight", ".lora_up.weight") | {f"{name}.alpha": torch.tensor(float(RANK)) for name in flat}


# name -> a function from the part and its pairs to the tensors of a file.
SPELLINGS = {
    "old": lambda part, pairs: _old(pairs),
    "old, with the part's name": lambda part, pairs: {f"{part}.{name}": tensor for name, tensor in _old(pairs).items()},
    "old, without processor": lambda part, pairs: {name.replace(".processor", ""): tensor for name, tensor in _old(pairs).items()},
    "dotted": lambda part, pairs: _sides(pairs, ".lora.down.weight", ".lora.up.weight"),
    "linear layer": lambda part, pairs: _sides(pairs, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "peft": lambda part, pairs: _sides(pairs, ".lora_A.weight", ".lora_B.weight"),
    "peft, of diffusers": lambda part, pairs: {f"{part}.{name}": tensor for name, tensor in
                                               _sides(pairs, ".lora_A.weight", ".lora_B.weight").items()},
    "peft, of peft": lambda part, pairs: {f"base_model.model.{name}": tensor for name, tensor in
                                          _sides(pairs, ".lora_A.default.weight", ".lora_B.default.weight").items()},
    "kohya": _kohya,
    "kohya, with dots": lambda part, pairs: _sides(pairs, ".lora_down.weight", ".lora_up.weight"),
}  # fmt: skip


def save(path, tensors, config=None):
    """Write a file, with peft's options as diffusers writes them."""
    metadata = {"format": "pt", **({} if config is None else {"lora_adapter_metadata": json.dumps(config)})}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path
