"""The UNet's and the MoVQ's cells, compiled by MindSpore in graph mode, against diffusers with the same weights."""

import mindspore
import numpy as np
import pytest
import references
import torch

from kandinsky_mindir.models.config import MoVQConfig, UNetConfig
from kandinsky_mindir.models.movq import MoVQDecoder, MoVQEncoder
from kandinsky_mindir.models.unet import UNet, UNetContext, added_kv_size

# Both sides round each float32 operation to 6e-8 of its result, in different orders. Some hundred operations follow one
# another in these networks and their errors add like a random walk: about 10 * 6e-8, times what a sum over up to a
# thousand products and cancellation in the residual stream amplify (up to ten). A wrong formula is off by 1e-3 or more.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def graph_mode():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


def run(cell, *arrays):
    outputs = cell(*(mindspore.Tensor(np.asarray(array, np.float32)) for array in arrays))
    return [output.asnumpy() for output in outputs] if isinstance(outputs, tuple) else outputs.asnumpy()


def cells(module, config_class, *classes):
    """The cells of `classes` with the weights of `module`; asserts that they share none, and what they leave."""
    config, arrays = config_class.from_dict(references.config_of(module)), references.arrays_of(module)
    built, left = [cls(config) for cls in classes], set(arrays)
    for cell in built:
        taken = set(arrays) - references.load_weights(cell, arrays)
        assert taken <= left, f"shared by two cells: {taken - left}"
        left -= taken
    return config, built, left


@pytest.mark.parametrize("name", references.names("unet"))
def test_unet(name):
    module = references.build("unet", name)
    config, (context, unet), left = cells(module, UNetConfig, UNetContext, UNet)
    assert left == set()
    side = 2 ** (len(config.block_out_channels) - 1)
    random = np.random.default_rng(0)
    image_embeds = random.standard_normal((2, config.encoder_hid_dim)).astype(np.float32)
    rows = [run(context, embed[None]) for embed in image_embeds]
    time_addition, added_kv = (np.concatenate(parts) for parts in zip(*rows))
    assert added_kv.shape == (2, added_kv_size(config))
    for batch, height, width in ((1, side, 3 * side), (2, 2 * side, side)):
        sample = random.standard_normal((batch, config.in_channels, height, width)).astype(np.float32)
        for timestep in (0, 500, 999):
            with torch.no_grad():
                conditions = {"image_embeds": torch.from_numpy(image_embeds[:batch])}
                expected = module(torch.from_numpy(sample), timestep, None, added_cond_kwargs=conditions).sample
                time_proj = module.time_proj(torch.tensor([timestep])).numpy()
            actual = run(unet, sample, time_proj, time_addition[:batch], added_kv[:batch])
            assert references.relative_error(actual, expected) <= TOLERANCE, (batch, height, width, timestep)


@pytest.mark.parametrize("name", references.names("movq"))
def test_movq(name):
    module = references.build("movq", name)
    config, (encoder, decoder), left = cells(module, MoVQConfig, MoVQEncoder, MoVQDecoder)
    assert left == {"quantize.embedding.weight"}
    random = np.random.default_rng(0)
    for batch, height, width in ((1, 3, 5), (2, 4, 4)):
        latents = random.standard_normal((batch, config.latent_channels, height, width)).astype(np.float32)
        factor = config.scale_factor
        image = random.uniform(-1, 1, (batch, 3, height * factor, width * factor)).astype(np.float32)
        with torch.no_grad():
            expected_image = module.decode(torch.from_numpy(latents), force_not_quantize=True).sample
            expected_latents = module.encode(torch.from_numpy(image)).latents
        assert references.relative_error(run(decoder, latents), expected_image) <= TOLERANCE
        assert references.relative_error(run(encoder, image), expected_latents) <= TOLERANCE
