"""The cells of inpainting and depth, of Ascend's layers, against diffusers with the same weights: pipelines hold those of the CPU."""

import mindspore
import numpy as np
import pytest
import references
import torch
from diffusers import UNet2DConditionModel
from kandinsky_mindir.export.checkpoint.tensor_names import SOURCES
from kandinsky_mindir.models.conditions import ConditionedUNet, HintMap, InpaintMap
from kandinsky_mindir.models.config import UNetConfig
from kandinsky_mindir.models.targets import building_for
from kandinsky_mindir.models.unet import UNetContext
from test_models_unet_movq import TOLERANCE, run

KINDS = {"inpaint": (InpaintMap, {"in_channels": 9}),
         "controlnet": (HintMap, {"in_channels": 8, "addition_embed_type": "image_hint"})}  # fmt: skip


@pytest.fixture(autouse=True)
def graph_mode():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


def loaded(cell, kind, arrays):
    """The cell with the parameters that the exporter makes of a checkpoint's tensors."""
    sources = SOURCES[f"{kind}_unet"](tuple(arrays))
    made = {name: sources[name].combine(*(arrays[stored] for stored in sources[name].names))
            for name, _ in cell.parameters_and_names()}
    references.load_weights(cell, made)
    return cell


@pytest.mark.slow
@pytest.mark.parametrize("kind, name, target", [
    ("inpaint", "dummy", "ascend"), ("inpaint", "shift", "ascend"),
    ("inpaint", "levels", "ascend"), ("controlnet", "dummy", "ascend"), ("controlnet", "shift", "ascend"),
    ("controlnet", "levels", "ascend"),
])  # fmt: skip
def test_conditioned_unet(kind, name, target):
    cls, options = KINDS[kind]
    module = UNet2DConditionModel(**references.CONFIGURATIONS["unet"][name] | options)
    references.randomize(module, sum(name.encode()))
    module.eval().requires_grad_(False)
    config, arrays = UNetConfig.from_dict(references.config_of(module)), references.arrays_of(module)
    with building_for(target):
        context, make_map, unet = (loaded(make(config), kind, arrays) for make in (UNetContext, cls, ConditionedUNet))
    side, random = 2 ** (len(config.block_out_channels) - 1), np.random.default_rng(0)
    latents = random.standard_normal((1, 4, 2 * side, side)).astype(np.float32)
    embeds = random.standard_normal((1, config.encoder_hid_dim)).astype(np.float32)
    conditions = {"image_embeds": torch.from_numpy(embeds)}
    if kind == "inpaint":
        mask = (random.random((1, 1, 2 * side, side)) < 0.5).astype(np.float32)
        given = [random.standard_normal(latents.shape).astype(np.float32) * mask, mask]
        sample = np.concatenate([latents, *given], 1)
    else:
        given = [random.random((1, 3, 16 * side, 8 * side)).astype(np.float32)]
        conditions["hint"], sample = torch.from_numpy(given[0]), latents
    with torch.no_grad():
        expected = module(torch.from_numpy(sample), 500, None, added_cond_kwargs=conditions).sample
        time_proj = module.time_proj(torch.tensor([500])).numpy()
    actual = run(unet, latents, time_proj, *run(context, embeds), run(make_map, *given))
    assert references.relative_error(actual, expected) <= TOLERANCE
