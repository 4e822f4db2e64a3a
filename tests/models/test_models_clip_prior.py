"""Text encoder, image encoder and prior in MindSpore's graph mode against transformers and diffusers on torch.

Tolerance: float32 rounds each operation by up to 6e-8 of its result; errors of independent operations add as a random
walk, so a hundred operations in sequence (the deepest configuration has about that many) give 6e-7. A factor of ten
for norms and softmaxes, which amplify, stays under 1e-5; any wrong constant, mask or order is above 1e-3.
"""

import mindspore
import numpy as np
import pytest
import references
import torch
from diffusers.models.embeddings import get_timestep_embedding
from kandinsky_mindir.models.clip import ImageEncoder, TextEncoder
from kandinsky_mindir.models.config import ImageEncoderConfig, PriorConfig, TextEncoderConfig
from kandinsky_mindir.models.prior import Prior, PriorContext
from kandinsky_mindir.models.targets import building_for
from mindspore import Tensor

TOLERANCE = 1e-5

mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")


@pytest.fixture(autouse=True)
def made_for(target):
    with building_for(target):
        yield


def run(cell, *arrays):
    outputs = cell(*map(Tensor, arrays))
    return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


@references.cases("text_encoder")
def test_text_encoder(name, target):
    reference = references.build("text_encoder", name)
    config = TextEncoderConfig.from_dict(references.config_of(reference))
    cell = TextEncoder(config)
    assert references.load_weights(cell, references.parameters_of(reference, target)) == set()

    rng = np.random.default_rng(0)
    ids = rng.integers(3, config.vocab_size, (1, config.max_position_embeddings))
    ids[0, 11:] = config.eos_token_id
    if config.eos_token_id == 2:  # the old rule: the end token has the highest id
        ids[0, 11] = config.vocab_size - 1
        ids[0, :11] %= config.vocab_size - 1
    else:
        ids[0, :11] -= ids[0, :11] == config.eos_token_id
    expected = reference(torch.from_numpy(ids))
    embeds, hidden = run(cell, ids.astype(np.int32), np.array([11], np.int32))
    assert references.relative_error(embeds, expected.text_embeds) <= TOLERANCE
    assert references.relative_error(hidden, expected.last_hidden_state) <= TOLERANCE


@references.cases("image_encoder")
def test_image_encoder(name, target):
    reference = references.build("image_encoder", name)
    config = ImageEncoderConfig.from_dict(references.config_of(reference))
    cell = ImageEncoder(config)
    assert references.load_weights(cell, references.parameters_of(reference, target)) == set()

    shape = (1, 3, config.image_size, config.image_size)
    pixels = np.random.default_rng(1).standard_normal(shape, np.float32)
    expected = reference(torch.from_numpy(pixels)).image_embeds
    (embeds,) = run(cell, pixels)
    assert references.relative_error(embeds, expected) <= TOLERANCE


@references.cases("prior")
def test_prior_context_and_step_equal_the_whole_transformer(name, target):
    reference = references.build("prior", name)
    config = PriorConfig.from_dict(references.config_of(reference))
    context, step = PriorContext(config), Prior(config)
    arrays = references.parameters_of(reference, target)
    left = references.load_weights(context, arrays) & references.load_weights(step, arrays)
    assert left == {"clip_mean", "clip_std"}  # applied by the runner, after the last step

    batch, tokens, timestep = 2, config.num_embeddings, 437
    rng = np.random.default_rng(2)
    latents = rng.standard_normal((batch, config.embedding_dim), np.float32)
    embeds = rng.standard_normal((batch, config.text_embed_dim), np.float32)
    hidden = rng.standard_normal((batch, tokens, config.embedding_dim), np.float32)
    lengths = rng.integers(2, tokens, (batch, 1))
    mask = (np.arange(tokens) < lengths).astype(np.float32)
    expected = reference(
        torch.from_numpy(latents), timestep, torch.from_numpy(embeds), torch.from_numpy(hidden),
        torch.from_numpy(mask > 0),
    ).predicted_image_embedding

    sinusoid = get_timestep_embedding(torch.tensor([timestep]), config.inner_dim, True, 0).numpy()
    contexts = [run(context, embeds[i:i + 1], hidden[i:i + 1], mask[i:i + 1])[0] for i in range(batch)]
    (both,) = run(step, latents, sinusoid, np.concatenate(contexts, 1), mask)
    assert references.relative_error(both, expected) <= TOLERANCE
    if name == "dummy":  # compiling is what takes time here, and the batch is the same code everywhere
        (first,) = run(step, latents[:1], sinusoid, contexts[0], mask[:1])
        assert references.relative_error(first, expected[:1]) <= TOLERANCE
