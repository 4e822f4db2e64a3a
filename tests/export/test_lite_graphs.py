"""Every graph on MindSpore Lite, as standard MindIR in MindSpore, and by the exporter's own evaluator, against diffusers and
transformers on torch. Each graph is compiled once for all three, and kept between runs."""

from functools import cached_property

import mindspore
import numpy as np
import plants
import pytest
import references
import torch
from kandinsky_mindir.export.checkpoint.folder import PARTS as CHECKPOINT_PARTS
from kandinsky_mindir.export.checkpoint.tensor_names import SOURCES
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.export.graphs import interpreter
from kandinsky_mindir.export.graphs.graph_specs import part_specs
from kandinsky_mindir.export.graphs.lowering import lower
from kandinsky_mindir.export.graphs.mindir import compile_graph
from kandinsky_mindir.models import winograd
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.diffusion.sinusoid import timestep_embedding
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.unpacking import unpack

# Float32 rounds each operation to 6e-8 of its result. Errors of some hundred operations in sequence add like a random
# walk (about 10 x 6e-8), and cancellation in sums and norms amplifies them up to ten times: 1e-5 has room for that, and
# none for a wrong epsilon, a tanh-form GELU (2e-4) or an approximate sine (2e-4).
TOLERANCE = 1e-5

LITE = 0  # the place of Lite's answer among the three
EXPORTED = "exported"  # in place of a configuration's name: the trained checkpoint's graphs, as its bundle has them


class Graphs:
    """The graphs of one part with the reference's weights, run in three ways from the same files."""

    def __init__(self, part, module, folder, latent_size):
        self.folder = folder
        self.config = CHECKPOINT_PARTS[part].config.from_dict(references.config_of(module))
        self.specs = list(part_specs(part, self.config, {self.size(latent_size): latent_size} if latent_size else {}))

    def size(self, latent_size):
        """Of the picture, where the part has one."""
        return tuple(getattr(self.config, "scale_factor", 0) * side for side in latent_size)

    def run(self, name, batch=1, **inputs):
        """The graph's outputs: each a list of what Lite, MindSpore and the evaluator (in float64) say."""
        spec = next(spec for spec in self.specs if (spec.name, spec.batch) == (name, batch))
        arrays = {tensor.name: np.ascontiguousarray(inputs[tensor.name], tensor.dtype) for tensor in spec.inputs}
        standard = self.standard(spec)
        loaded = mindspore.nn.GraphCell(mindspore.load(str(standard)))(*map(mindspore.Tensor, arrays.values()))
        loaded = loaded if isinstance(loaded, tuple) else (loaded,)
        exact = interpreter.outputs(plants.read(standard), standard.parent, arrays)
        by_mindspore = [tensor.asnumpy() for tensor in loaded]
        return list(zip(self.lite(spec, arrays), by_mindspore, exact, strict=True))


class Compiled(Graphs):
    """Compiled here, the first time; `folder` is kept. Lite reads the lowered MindIR."""

    def __init__(self, part, module, folder, latent_size, engine):
        super().__init__(part, module, folder, latent_size)
        self.engine = engine
        self.arrays, self.cells = references.arrays_of(module), {}
        self.sources = SOURCES[part](tuple(self.arrays))

    @cached_property
    def index(self):
        """Of the weights, which are written anew each time: that takes a moment."""
        parameters = {parameter.name: None for spec in self.specs for parameter in spec.cell().get_parameters()}
        with WeightsWriter(self.folder / "weights.bin") as writer:
            for name in parameters:
                source = self.sources[name]
                writer.write(name, source.combine(*(self.arrays[stored] for stored in source.names)))
        return writer.index

    def standard(self, spec):
        path = self.folder / f"{spec.name}_{spec.batch}.mindir"
        if not path.exists():
            signature = [(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]
            model = compile_graph(spec.cell(), signature, spec.outputs, self.index, "weights.bin")
            path.with_suffix(".lite.mindir").write_bytes(lower(model).SerializeToString())
            path.write_bytes(model.SerializeToString())
        return path

    def lite(self, spec, arrays):
        with self.engine.load(self.standard(spec).with_suffix(".lite.mindir")) as model:
            return model.run([arrays[tensor.name] for tensor in model.inputs])


class Exported(Graphs):
    """As a bundle has them: Lite reads them in its own format."""

    def __init__(self, part, module, folder, latent_size, engine, bundle):
        super().__init__(part, module, folder, latent_size)
        self.engine, self.bundle, self.folder = engine, Bundle(bundle), folder / "unpacked"
        unpack(self.bundle, self.folder)  # with weights that MindSpore reads

    def graph(self, spec):
        graphs = self.bundle.manifest.graphs
        return next(graph for graph in graphs if (graph.name, graph.batch) == (spec.name, spec.batch))

    def standard(self, spec):
        return self.folder / self.graph(spec).mindir

    def lite(self, spec, arrays):
        models = Models(self.bundle, self.engine, keep_loaded=False)
        with models.lease(spec.name, spec.batch, self.graph(spec).size) as run:
            return run(**arrays)


@pytest.fixture
def graphs(engine, bundles, kept, tmp_path):
    def graphs(part, name, module, latent_size=None):
        if name == EXPORTED:
            return Exported(part, module, tmp_path, latent_size, engine, bundles("micro"))
        folder = kept.get(f"{part}-{name}-{latent_size}", lambda _: None)
        return Compiled(part, module, folder, latent_size, engine)

    return graphs


def build(part, name):
    return references.build(part, "micro" if name == EXPORTED else name)


@pytest.fixture
def fewest(name, monkeypatch):
    """The "dummy" configurations' convolutions become what those of many channels are."""
    if name == "dummy":
        monkeypatch.setattr(winograd, "FEWEST", 1)


def check(found, expected, record_property):
    """found: one output as Lite, MindSpore and the evaluator say it."""
    for who, actual in zip(("lite", "mindspore", "evaluator"), found, strict=True):
        error = references.relative_error(actual, expected)
        record_property(f"relative_error of {who}", float(error))
        assert error <= TOLERANCE, who


# Graphs that take more than ten seconds to compile, and what the exported ones are once more.
LONG = {("unet", "levels"), ("unet", "shift"), ("movq", "levels"), ("movq", "plain"), ("prior", "wide"), ("prior", "deep")} | {(part, "micro") for part in references.CONFIGURATIONS}


def cases(part, **rest):
    """Rows for parametrize: each configuration of `part`, and the exported one, with the `rest` that is given by its name."""
    names = (*references.names(part), EXPORTED)
    assert not rest or set(rest) == set(names)
    return [pytest.param(name, *rest.get(name, ()), marks=[pytest.mark.slow] * ((part, name) in LONG)) for name in names]


def normal(random, *shape):
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", cases("text_encoder"))
def test_text_encoder(name, graphs, record_property):
    module = build("text_encoder", name)
    length, vocabulary = module.config.max_position_embeddings, module.config.vocab_size
    input_ids = np.random.default_rng(0).integers(3, vocabulary - 1, (1, length)).astype(np.int32)
    eos, position = module.config.eos_token_id, 9
    input_ids[input_ids == eos] += 1  # the end token comes first where the text ends
    input_ids[0, position:] = vocabulary - 1 if eos == 2 else eos
    with torch.no_grad():
        expected = module(torch.from_numpy(input_ids).long())
    embeds, hidden_states = graphs("text_encoder", name, module).run(
        "text_encoder", input_ids=input_ids, end_position=np.array([position])
    )
    check(embeds, expected.text_embeds, record_property)
    check(hidden_states, expected.last_hidden_state, record_property)


@pytest.mark.parametrize("name", cases("image_encoder"))
def test_image_encoder(name, graphs, record_property):
    module = build("image_encoder", name)
    side = module.config.image_size
    pixel_values = normal(np.random.default_rng(0), 1, 3, side, side)
    with torch.no_grad():
        expected = module(torch.from_numpy(pixel_values)).image_embeds
    (embeds,) = graphs("image_encoder", name, module).run("image_encoder", pixel_values=pixel_values)
    check(embeds, expected, record_property)


@pytest.mark.parametrize("name, batch", cases("prior", dummy=(1,), wide=(2,), deep=(1,), micro=(2,), exported=(2,)))
def test_prior(name, batch, graphs, record_property):
    module, random, timestep = build("prior", name), np.random.default_rng(0), 731
    part = graphs("prior", name, module)
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
                 text_mask=mask[i : i + 1])[0][LITE]
        for i in range(batch)
    ]
    (embeds,) = part.run("prior", batch, latents=latents, time_proj=timestep_embedding(timestep, config.inner_dim),
                         context=np.concatenate(contexts, axis=1), text_mask=mask)
    check(embeds, expected, record_property)


@pytest.mark.parametrize("name, batch, latent_size", cases("unet", dummy=(2, (4, 6)), levels=(1, (8, 16)), shift=(2, (8, 4)),
                                                           micro=(2, (16, 16)), exported=(2, (16, 16))))
def test_unet(name, batch, latent_size, graphs, record_property, fewest):
    module, random, timestep = build("unet", name), np.random.default_rng(0), 421
    part = graphs("unet", name, module, latent_size)
    config = part.config
    image_embeds = normal(random, batch, config.encoder_hid_dim)
    sample = normal(random, batch, config.in_channels, *latent_size)
    with torch.no_grad():
        expected = module(torch.from_numpy(sample), timestep, None,
                          added_cond_kwargs={"image_embeds": torch.from_numpy(image_embeds)}).sample
    contexts = [[output[LITE] for output in part.run("unet_context", image_embeds=image_embeds[i : i + 1])]
                for i in range(batch)]
    time_addition, added_kv = (np.concatenate(tensors) for tensors in zip(*contexts))
    time_proj = timestep_embedding(timestep, config.block_out_channels[0], flip_sin_to_cos=config.flip_sin_to_cos,
                                   freq_shift=config.freq_shift)
    (output,) = part.run("unet", batch, sample=sample, time_proj=time_proj, time_addition=time_addition, added_kv=added_kv)
    check(output, expected, record_property)


@pytest.mark.parametrize("name, latent_size", cases("movq", dummy=((6, 4),), levels=((4, 4),), plain=((5, 7),),
                                                    micro=((16, 16),), exported=((16, 16),)))
def test_movq(name, latent_size, graphs, record_property, fewest):
    module = build("movq", name)
    part = graphs("movq", name, module, latent_size)
    latents = normal(np.random.default_rng(0), 1, part.config.latent_channels, *latent_size)
    with torch.no_grad():
        expected = module.decode(torch.from_numpy(latents), force_not_quantize=True).sample
    (image,) = part.run("movq_decoder", latents=latents)
    check(image, expected, record_property)
    pixels = np.random.default_rng(1).uniform(-1, 1, expected.shape).astype(np.float32)
    with torch.no_grad():
        expected = module.encode(torch.from_numpy(pixels)).latents
    (found,) = part.run("movq_encoder", image=pixels)
    check(found, expected, record_property)
