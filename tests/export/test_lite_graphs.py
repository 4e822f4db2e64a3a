"""Every graph on MindSpore Lite, and as standard MindIR in MindSpore, against diffusers and transformers on torch."""

import mindspore
import numpy as np
import pytest
import references
import torch
from kandinsky_mindir.export.checkpoint import PARTS as CHECKPOINT_PARTS
from kandinsky_mindir.export.graph_specs import part_specs
from kandinsky_mindir.export.lowering import lower
from kandinsky_mindir.export.mindir import compile_graph
from kandinsky_mindir.export.tensor_names import SOURCES
from kandinsky_mindir.export.weights import WeightsWriter
from kandinsky_mindir.models import winograd
from kandinsky_mindir.runner.diffusion.sinusoid import timestep_embedding

# Float32 rounds each operation to 6e-8 of its result. Errors of some hundred operations in sequence add like a random
# walk (about 10 x 6e-8), and cancellation in sums and norms amplifies them up to ten times: 1e-5 has room for that, and
# none for a wrong epsilon, a tanh-form GELU (2e-4) or an approximate sine (2e-4).
TOLERANCE = 1e-5


class Graphs:
    """The graphs of one part with the reference's weights, run by Lite and by MindSpore from the same files."""

    def __init__(self, part, module, folder, engine, latent_size=None):
        self.folder, self.engine = folder, engine
        self.config = CHECKPOINT_PARTS[part].config.from_dict(references.config_of(module))
        self.specs = list(part_specs(part, self.config, {(0, 0): latent_size} if latent_size else {}))
        arrays = references.arrays_of(module)
        sources = SOURCES[part](tuple(arrays))
        cells = [spec.cell() for spec in self.specs]
        with WeightsWriter(folder / "weights.bin") as writer:
            for name in {parameter.name: None for cell in cells for parameter in cell.get_parameters()}:
                writer.write(name, sources[name].combine(*(arrays[stored] for stored in sources[name].names)))
        self.index = writer.index

    def run(self, name, batch=1, **inputs):
        """The graph's outputs on Lite, after checking that MindSpore computes the same from the standard MindIR."""
        spec = next(spec for spec in self.specs if (spec.name, spec.batch) == (name, batch))
        signature = [(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]
        model = compile_graph(spec.cell(), signature, spec.outputs, self.index, "weights.bin")
        standard, lowered = (self.folder / f"{name}_{batch}{ending}" for ending in (".mindir", ".lite.mindir"))
        standard.write_bytes(model.SerializeToString())
        lowered.write_bytes(lower(model).SerializeToString())
        arrays = [np.ascontiguousarray(inputs[tensor.name], tensor.dtype) for tensor in spec.inputs]
        with self.engine.load(lowered) as lite:
            by_name = dict(zip((tensor.name for tensor in spec.inputs), arrays))
            outputs = lite.run([by_name[tensor.name] for tensor in lite.inputs])
        loaded = mindspore.nn.GraphCell(mindspore.load(str(standard)))(*map(mindspore.Tensor, arrays))
        loaded = loaded if isinstance(loaded, tuple) else (loaded,)
        for actual, expected in zip(loaded, outputs, strict=True):
            assert references.relative_error(actual.asnumpy(), expected) <= TOLERANCE, "standard MindIR"
        return outputs


@pytest.fixture
def graphs(engine, tmp_path):
    return lambda part, module, latent_size=None: Graphs(part, module, tmp_path, engine, latent_size)


@pytest.fixture
def fewest(name, monkeypatch):
    """The "dummy" configurations' convolutions become what those of many channels are."""
    if name == "dummy":
        monkeypatch.setattr(winograd, "FEWEST", 1)


def check(actual, expected, record_property):
    error = references.relative_error(actual, expected)
    record_property("relative_error", error)
    assert error <= TOLERANCE


def normal(random, *shape):
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", references.names("text_encoder"))
def test_text_encoder(name, graphs, record_property):
    module = references.build("text_encoder", name)
    length, vocabulary = module.config.max_position_embeddings, module.config.vocab_size
    input_ids = np.random.default_rng(0).integers(3, vocabulary - 1, (1, length)).astype(np.int32)
    eos, position = module.config.eos_token_id, 9
    input_ids[input_ids == eos] += 1  # the end token comes first where the text ends
    input_ids[0, position:] = vocabulary - 1 if eos == 2 else eos
    with torch.no_grad():
        expected = module(torch.from_numpy(input_ids).long())
    embeds, hidden_states = graphs("text_encoder", module).run(
        "text_encoder", input_ids=input_ids, end_position=np.array([position])
    )
    check(embeds, expected.text_embeds, record_property)
    check(hidden_states, expected.last_hidden_state, record_property)


@pytest.mark.parametrize("name", references.names("image_encoder"))
def test_image_encoder(name, graphs, record_property):
    module = references.build("image_encoder", name)
    side = module.config.image_size
    pixel_values = normal(np.random.default_rng(0), 1, 3, side, side)
    with torch.no_grad():
        expected = module(torch.from_numpy(pixel_values)).image_embeds
    (embeds,) = graphs("image_encoder", module).run("image_encoder", pixel_values=pixel_values)
    check(embeds, expected, record_property)


@pytest.mark.parametrize("name, batch", list(zip(references.names("prior"), (1, 2, 1, 2))))
def test_prior(name, batch, graphs, record_property):
    module, random, timestep = references.build("prior", name), np.random.default_rng(0), 731
    part = graphs("prior", module)
    config = part.config
    text_embeds = normal(random, batch, config.text_embed_dim)
    hidden_states = normal(random, batch, config.num_embeddings, config.embedding_dim)
    mask = (np.arange(config.num_embeddings) < random.integers(2, config.num_embeddings, (batch, 1))).astype(np.float32)
    latents = normal(random, batch, config.embedding_dim)
    with torch.no_grad():
        expected = module(
            torch.from_numpy(latents), timestep, torch.from_numpy(text_embeds), torch.from_numpy(hidden_states),
            torch.from_numpy(mask).bool(),
        ).predicted_image_embedding
    contexts = [
        part.run("prior_context", text_embeds=text_embeds[i : i + 1], text_hidden_states=hidden_states[i : i + 1],
                 text_mask=mask[i : i + 1])[0]
        for i in range(batch)
    ]
    (embeds,) = part.run("prior", batch, latents=latents, time_proj=timestep_embedding(timestep, config.inner_dim),
                         context=np.concatenate(contexts, axis=1), text_mask=mask)
    check(embeds, expected, record_property)


@pytest.mark.parametrize("name, batch, latent_size",
                         list(zip(references.names("unet"), (2, 1, 2, 2), ((4, 6), (8, 16), (8, 4), (16, 16)))))
def test_unet(name, batch, latent_size, graphs, record_property, fewest):
    module, random, timestep = references.build("unet", name), np.random.default_rng(0), 421
    part = graphs("unet", module, latent_size)
    config = part.config
    image_embeds = normal(random, batch, config.encoder_hid_dim)
    sample = normal(random, batch, config.in_channels, *latent_size)
    with torch.no_grad():
        expected = module(torch.from_numpy(sample), timestep, None,
                          added_cond_kwargs={"image_embeds": torch.from_numpy(image_embeds)}).sample
    contexts = [part.run("unet_context", image_embeds=image_embeds[i : i + 1]) for i in range(batch)]
    time_addition, added_kv = (np.concatenate(tensors) for tensors in zip(*contexts))
    time_proj = timestep_embedding(timestep, config.block_out_channels[0], flip_sin_to_cos=config.flip_sin_to_cos,
                                   freq_shift=config.freq_shift)
    (output,) = part.run("unet", batch, sample=sample, time_proj=time_proj, time_addition=time_addition, added_kv=added_kv)
    check(output, expected, record_property)


@pytest.mark.parametrize("name, latent_size", list(zip(references.names("movq"), ((6, 4), (4, 4), (5, 7), (16, 16)))))
def test_movq_decoder(name, latent_size, graphs, record_property, fewest):
    module = references.build("movq", name)
    part = graphs("movq", module, latent_size)
    latents = normal(np.random.default_rng(0), 1, part.config.latent_channels, *latent_size)
    with torch.no_grad():
        expected = module.decode(torch.from_numpy(latents), force_not_quantize=True).sample
    (image,) = part.run("movq_decoder", latents=latents)
    check(image, expected, record_property)
