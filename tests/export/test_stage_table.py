"""A new graph is one row of the stage table and its cell: nothing else changes for it to be exported, sealed, planned and
verified."""

import checkpoints
import pytest
from kandinsky_mindir.export.bundle import export_bundle
from kandinsky_mindir.export.graphs.graph_specs import part_specs
from kandinsky_mindir.models.config import MoVQConfig
from kandinsky_mindir.runner.bundle import stages
from kandinsky_mindir.runner.bundle.manifest import GraphInfo, Manifest, TensorInfo
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.sealed_examples import SealedExample, file_name
from kandinsky_mindir.runner.bundle.stages import STAGES, Stage
from kandinsky_mindir.runner.bundle.stages.feeds import Output
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.loading.memory_plan import plan_memory
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import verify

ENCODE = "a picture to its latents"
SIZE = (16, 16)
ROW = Stage(
    name="picture_to_latents",  # as movq_encoder, under another name
    part="movq",
    cell="movq:MoVQEncoder",
    inputs=lambda config, variant: {"image": (1, config.in_channels, *variant.size)},
    outputs=("latents",),
    tasks=(ENCODE,),
    per_size=True,
    feeds={"image": Output("movq_decoder", "image")},
    activations=lambda graph: 123_000_000,
)


@pytest.mark.slow
def test_a_row_is_all_that_a_new_graph_needs(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "STAGES", (*STAGES, ROW))
    prior, decoder = checkpoints.save("narrow", tmp_path)
    bundle = Bundle(export_bundle(prior, decoder, tmp_path / "bundle", [SIZE], progress=False))

    graph = bundle.manifest.find("picture_to_latents", 1, SIZE)
    assert (graph.part, graph.inputs[0].shape, graph.outputs[0].shape) == ("movq", (1, 3, 16, 16), (1, 4, 8, 8))

    fed = SealedExample.read(bundle.file(file_name(graph))).inputs["image"]
    decoded = SealedExample.read(bundle.file(file_name(bundle.manifest.find("movq_decoder", 1, SIZE)))).outputs[0]
    assert decoded.relative_error(fed) < 2**-3  # an example's inputs keep three bits behind the leading one: `short`

    (needed,) = stages.needed(bundle.manifest, [ENCODE], SIZE)
    assert needed == graph
    (demand,) = plan_memory(bundle, [graph]).demands
    assert 123_000_000 < demand.loading < 123_000_000 + 200_000_000

    verdicts = list(verify(Models(bundle, engine, keep_loaded=False)))
    assert [verdict.graph.name for verdict in verdicts][-1] == "picture_to_latents"
    assert all(verdict.right for verdict in verdicts), "\n".join(map(str, verdicts))


def test_a_row_gives_a_graph_to_compile(monkeypatch):
    """What the test above does at length, as far as it goes without compiling."""
    monkeypatch.setattr(stages, "STAGES", (*STAGES, ROW))
    config = MoVQConfig(norm_type="spatial", latent_channels=4, block_out_channels=(32, 64),
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    specs = list(part_specs("movq", config, {(16, 24): (8, 12)}))
    assert [spec.stem for spec in specs] == ["movq/movq_decoder_b1_16x24", "movq/movq_encoder_b1_16x24",
                                              "movq/picture_to_latents_b1_16x24"]
    assert specs[2].inputs == (TensorInfo("image", (1, 3, 16, 24), "float32"),)
    assert {parameter.name for parameter in specs[2].cell().get_parameters()} > {"quant_conv.weight"}


def test_cells_exist():
    """Each row names a cell, and each part's weights are those of its cells."""
    from importlib import import_module

    for row in STAGES:
        module, name = row.cell.split(":")
        cell = getattr(import_module(f"kandinsky_mindir.models.{module}"), name)
        assert issubclass(cell, import_module("mindspore").nn.Cell)


def test_what_feeds_an_example_comes_before_it():
    """Examples are made in the order of the table, and every input that is fed is one that the stage has."""

    def sources(feed):
        if isinstance(feed, Output):
            yield feed.stage, feed.name
        for value in vars(feed).values():
            if hasattr(value, "__dataclass_fields__"):
                yield from sources(value)

    made = {}
    for row in STAGES:
        for feed in row.feeds.values():
            assert all(name in made[stage] for stage, name in sources(feed))
        made[row.name] = row.outputs
    assert len(made) == len(STAGES)


def test_order_of_a_pictures_graphs():
    sizes = ((16, 16), (16, 24))
    graphs = tuple(
        GraphInfo(row.name, row.part, batch, size, "", "", (), (), ())
        for row in reversed(STAGES) for batch in row.batches for size in (sizes if row.per_size else (None,))
    )
    manifest = Manifest(sizes, graphs, {}, {}, {}, {}, None, {})
    found = stages.needed(manifest, stages.TEXT_TO_PICTURE, (16, 24), {"unet": (2, 1)})
    assert [(graph.name, graph.batch, graph.size) for graph in found] == [
        ("text_encoder", 1, None), ("prior_context", 1, None), ("prior", 2, None), ("unet_context", 1, None),
        ("unet", 2, (16, 24)), ("unet", 1, (16, 24)), ("movq_decoder", 1, (16, 24)),
    ]  # fmt: skip
    with pytest.raises(UserError, match="this bundle has no size 16x32"):
        stages.needed(manifest, stages.TEXT_TO_PICTURE, (16, 32))


def test_an_unknown_graph_has_an_estimate_too():
    tensors = (TensorInfo("x", (10, 10), "float32"),)
    assert stages.activations(GraphInfo("other", "other", 1, None, "", "", (), tensors, tensors)) == 2 * 4 * 200
