"""Graphs in pieces: what the chain of them computes on MindSpore Lite is what the reference does."""

import numpy as np
import pytest
import references
import torch
from kandinsky_mindir.export.checkpoint import PARTS as CHECKPOINT_PARTS
from kandinsky_mindir.export.graphs import unet
from kandinsky_mindir.export.lowering import lower
from kandinsky_mindir.export.mindir import compile_graph, output_tensors
from kandinsky_mindir.export.weights import WeightsWriter
from kandinsky_mindir.models.unet import UNet
from kandinsky_mindir.models.unet_pieces import cut
from kandinsky_mindir.runner.engine import EngineError, TensorSpec
from kandinsky_mindir.runner.engine.chain import Chain
from kandinsky_mindir.runner.sinusoid import timestep_embedding

TOLERANCE = 1e-5  # as in test_lite_graphs.py, and for the same reason


def context(module, image_embeds):
    """What the UNet takes of an image embedding, by the reference's own layers."""
    embeds = torch.from_numpy(image_embeds)
    with torch.no_grad():
        tokens = module.encoder_hid_proj(embeds)
        rows = []
        for block in [*module.down_blocks, module.mid_block, *module.up_blocks]:
            for attention in getattr(block, "attentions", None) or []:
                for projection in (attention.add_k_proj, attention.add_v_proj):
                    heads = projection(tokens).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                    rows.append(heads.flatten(1))
        return module.add_embedding(embeds).numpy(), torch.cat(rows, 1).numpy()


@pytest.mark.parametrize("limit", [1, 10**9])
def test_unet_in_pieces(limit, engine, tmp_path):
    module, random, size = references.build("unet", "dummy"), np.random.default_rng(0), (8, 4)
    config = CHECKPOINT_PARTS["unet"].config.from_dict(references.config_of(module))
    spec = [spec for spec in unet(config, {(0, 0): size}) if spec.name == "unet" and spec.batch == 2][0]
    with WeightsWriter(tmp_path / "weights.bin") as writer:
        for name, array in references.arrays_of(module).items():
            writer.write(name, array)
    shapes, models = {tensor.name: tensor.shape for tensor in spec.inputs}, []
    for number, piece in enumerate(spec.pieces(limit)):
        inputs = [(name, shapes[name], "float32") for name in piece.inputs]
        model = compile_graph(piece.cell(), inputs, piece.outputs, writer.index, "weights.bin")
        shapes |= {name: tuple(tensor.dims) for name, tensor in zip(piece.outputs, output_tensors(model))}
        path = tmp_path / f"{number}.mindir"
        path.write_bytes(lower(model).SerializeToString())
        models.append(engine.load(path, threads=1))
    levels = len(config.block_out_channels)
    assert (len(models) == 2 * levels + 1) if limit == 1 else (len(models) == 1) == (limit == 10**9)

    sample, image_embeds = (random.standard_normal(shape).astype(np.float32)
                            for shape in ((2, config.in_channels, *size), (2, config.encoder_hid_dim)))
    time_addition, added_kv = context(module, image_embeds)
    time_proj = timestep_embedding(421, config.block_out_channels[0], flip_sin_to_cos=config.flip_sin_to_cos,
                                   freq_shift=config.freq_shift)
    with torch.no_grad():
        expected = module(torch.from_numpy(sample), 421, None,
                          added_cond_kwargs={"image_embeds": torch.from_numpy(image_embeds)}).sample
    with Chain(models, [TensorSpec(tensor.name, tensor.shape, tensor.dtype) for tensor in spec.inputs]) as chain:
        (output,) = chain.run([sample, time_proj, time_addition, added_kv])
    assert references.relative_error(output, expected) <= TOLERANCE


def test_no_piece_is_larger_than_asked_but_one_block():
    config = CHECKPOINT_PARTS["unet"].config.from_dict(references.config_of(references.build("unet", "levels")))
    cell = UNet(config)
    stages = [*cell.down_blocks, cell.mid_block, *cell.up_blocks]
    sizes = [sum(4 * parameter.size for parameter in stage.get_parameters()) for stage in stages]
    for limit in (1, *np.cumsum(sizes).tolist()):
        pieces = cut(cell, config, limit)
        assert [stage for piece in pieces for stage in range(piece.first, piece.last + 1)] == list(range(len(stages)))
        for piece in pieces:
            assert piece.first == piece.last or sum(sizes[piece.first : piece.last + 1]) <= limit


class Echo:
    """A model with one input and one output that only has a description."""

    def __init__(self, taken, given):
        self.inputs, self.outputs = (TensorSpec(taken, (1,), "float32"),), (TensorSpec(given, (1,), "float32"),)

    def close(self):
        pass


def test_pieces_that_do_not_fit_together():
    inputs = [TensorSpec("a", (1,), "float32")]
    assert Chain([Echo("a", "b"), Echo("b", "c")], inputs).outputs[0].name == "c"
    with pytest.raises(EngineError, match="takes .*'x'.* which no piece before it gives"):
        Chain([Echo("a", "b"), Echo("x", "c")], inputs)
