"""The UNet's and the MoVQ's cells, compiled by MindSpore in graph mode, against diffusers with the same weights."""

import mindspore
import numpy as np
import pytest
import references
import torch
from kandinsky_mindir.export.graphs.mindir import compile_graph
from kandinsky_mindir.export.graphs.node_layers import operator_of
from kandinsky_mindir.models import layers, pictures
from kandinsky_mindir.models.config import MoVQConfig, UNetConfig
from kandinsky_mindir.models.movq import MoVQDecoder, MoVQEncoder
from kandinsky_mindir.models.targets import building_for
from kandinsky_mindir.models.unet import UNet, UNetContext
from kandinsky_mindir.runner.bundle.tensor_index import StoredTensor

# Both sides round each float32 operation to 6e-8 of its result, in different orders. Some hundred operations follow one
# another in these networks and their errors add like a random walk: about 10 * 6e-8, times what a sum over up to a
# thousand products and cancellation in the residual stream amplify (up to ten). A wrong formula is off by 1e-3 or more.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def graph_mode():
    mindspore.set_context(mode=mindspore.GRAPH_MODE)


@pytest.fixture
def made_for(target):
    with building_for(target):
        yield


def run(cell, *arrays):
    outputs = cell(*(mindspore.Tensor(np.asarray(array, np.float32)) for array in arrays))
    return [output.asnumpy() for output in outputs] if isinstance(outputs, tuple) else outputs.asnumpy()


def cells(module, config_class, *classes, target="cpu"):
    """The cells of `classes` with the weights of `module`; asserts that they share none, and what they leave."""
    config, arrays = config_class.from_dict(references.config_of(module)), references.parameters_of(module, target)
    built, left = [cls(config) for cls in classes], set(arrays)
    for cell in built:
        taken = set(arrays) - references.load_weights(cell, arrays)
        assert taken <= left, f"shared by two cells: {taken - left}"
        left -= taken
    return config, built, left


def slow(*row):
    """test_lite_graphs.py holds the same configurations to the same reference, as graphs that are compiled once."""
    return pytest.param(*row, marks=pytest.mark.slow)


# MindSpore takes seconds to compile a shape of a graph: every configuration has one, and between them are both batches,
# square, wide and tall pictures, and a side of one pixel at the lowest level.
@pytest.mark.parametrize("name, batch, height, width, target",
                         [slow("dummy", 2, 2, 2, "cpu"), slow("levels", 2, 1, 2, "cpu"), slow("shift", 1, 2, 3, "cpu"),
                          slow("micro", 1, 2, 1, "cpu"), slow("dummy", 3, 2, 1, "ascend"), slow("levels", 2, 1, 2, "ascend"),
                          slow("shift", 1, 2, 3, "ascend")])  # fmt: skip
def test_unet(name, batch, height, width, target, made_for):
    module = references.build("unet", name)
    config, (context, unet), left = cells(module, UNetConfig, UNetContext, UNet, target=target)
    assert left == set()
    side = 2 ** (len(config.block_out_channels) - 1)
    random = np.random.default_rng(0)
    image_embeds = random.standard_normal((batch, config.encoder_hid_dim)).astype(np.float32)
    rows = [run(context, embed[None]) for embed in image_embeds]
    time_addition, added_kv = (np.concatenate(parts) for parts in zip(*rows))
    assert added_kv.shape == (batch, config.added_kv_size)
    sample = random.standard_normal((batch, config.in_channels, height * side, width * side)).astype(np.float32)
    for timestep in (0, 500, 999):
        with torch.no_grad():
            conditions = {"image_embeds": torch.from_numpy(image_embeds)}
            expected = module(torch.from_numpy(sample), timestep, None, added_cond_kwargs=conditions).sample
            time_proj = module.time_proj(torch.tensor([timestep])).numpy()
        actual = run(unet, sample, time_proj, time_addition, added_kv)
        assert references.relative_error(actual, expected) <= TOLERANCE, timestep


@pytest.mark.parametrize("name, batch, height, width, target",
                         [slow("dummy", 1, 3, 5, "cpu"), slow("levels", 1, 2, 2, "cpu"), slow("plain", 2, 4, 1, "cpu"),
                          slow("micro", 2, 3, 4, "cpu"), slow("dummy", 1, 3, 5, "ascend"), slow("levels", 1, 2, 2, "ascend"),
                          slow("plain", 2, 4, 1, "ascend")])  # fmt: skip
def test_movq(name, batch, height, width, target, made_for):
    module = references.build("movq", name)
    config, (encoder, decoder), left = cells(module, MoVQConfig, MoVQEncoder, MoVQDecoder, target=target)
    assert left == {"quantize.embedding.weight"}
    random = np.random.default_rng(0)
    latents = random.standard_normal((batch, config.latent_channels, height, width)).astype(np.float32)
    sides = height * config.scale_factor, width * config.scale_factor
    image = random.uniform(-1, 1, (batch, 3, *sides)).astype(np.float32)
    with torch.no_grad():
        expected_image = module.decode(torch.from_numpy(latents), force_not_quantize=True).sample
        expected_latents = module.encode(torch.from_numpy(image)).latents
    assert references.relative_error(run(decoder, latents), expected_image) <= TOLERANCE
    assert references.relative_error(run(encoder, image), expected_latents) <= TOLERANCE


def convolutions(decoder, height, width):
    """How many convolutions its graph has, as Conv2D or as products."""
    index = {parameter.name: StoredTensor("weights.bin", 0, parameter.shape) for parameter in decoder.get_parameters()}
    latents = ("latents", (2, decoder.post_quant_conv.in_channels, height, width), "float32")
    nodes = compile_graph(decoder, [latents], ["image"], index, "weights.bin").graph.node
    return sum(operator_of(node) in ("Conv2D", "MatMul", "BatchMatMul") for node in nodes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "micro"])
def test_a_large_picture_is_decoded_in_bands(name, monkeypatch):
    """Bands of a latent row each: the same numbers as the reference's."""
    module, height, width = references.build("movq", name), 2, 3
    config, (_, decoder), _ = cells(module, MoVQConfig, MoVQEncoder, MoVQDecoder)
    whole = convolutions(MoVQDecoder(config), height, width)
    monkeypatch.setattr(pictures, "BAND", 1)
    assert convolutions(MoVQDecoder(config), height, width) > whole
    latents = np.random.default_rng(0).standard_normal((2, config.latent_channels, height, width)).astype(np.float32)
    with torch.no_grad():
        expected = module.decode(torch.from_numpy(latents), force_not_quantize=True).sample
    assert references.relative_error(run(decoder, latents), expected) <= TOLERANCE


HEADS, TOKENS, SEEN, WIDTH = 3, 6, 5, 4


@pytest.mark.parametrize("scores", [HEADS * TOKENS * SEEN, 2 * TOKENS * SEEN, TOKENS * SEEN, 4 * SEEN, SEEN])
def test_attention_in_shares(scores, monkeypatch):
    """All heads at once, two and one, one, four queries and two, one query."""
    monkeypatch.setattr(layers, "SCORES", 4 * scores)
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((HEADS, tokens, WIDTH)).astype(np.float32) for tokens in (TOKENS, SEEN, SEEN))
    expected = torch.nn.functional.scaled_dot_product_attention(*(torch.from_numpy(x.astype(np.float64)) for x in (q, k, v)))
    assert references.relative_error(run(layers.Attention(WIDTH), q, k, v), expected) <= TOLERANCE


def test_group_norm_keeps_its_digits_far_from_zero():
    x = (1000 + np.random.default_rng(0).standard_normal((2, 8, 8, 6))).astype(np.float32)
    norm = layers.GroupNorm(3, 6)
    references.load_weights(norm, {"weight": np.ones(6, np.float32), "bias": np.zeros(6, np.float32)})
    groups = x.astype(np.float64).reshape(2, 64, 3, 2)
    expected = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    # Numbers near 1000 are rounded to 6e-5, in the mean, in x * scale and in the shift: three such errors at most.
    # A variance from E[x^2] - E[x]^2 would be off by 1e6 * 6e-8, 6 %.
    np.testing.assert_allclose(run(norm, x), expected.reshape(x.shape), rtol=0, atol=3 * 6e-5)
