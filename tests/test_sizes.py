"""Sizes of one bundle share its weights."""

import copy

import checkpoints
from diffusers import UNet2DConditionModel
from kandinsky_mindir.export.bundle import export_bundle
from references import CONFIGURATIONS, randomize


def disk(bundle):
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


def test_two_sizes_cost_little_more_than_one(tmp_path, record_property):
    """A graph takes some hundred kilobytes, whatever its weights are: what counts is that weights are not copied. So the
    UNet here has 150 MB of them, as much to a graph as makes sense for a test; the real one has 5 GB."""
    prior, decoder = map(copy.copy, checkpoints.pipelines("narrow"))
    options = CONFIGURATIONS["unet"]["dummy"] | {"block_out_channels": (256, 512), "attention_head_dim": 64}
    decoder.register_modules(unet=UNet2DConditionModel(**options))
    randomize(decoder.unet, seed=0)
    for pipeline, name in ((prior, "prior"), (decoder, "decoder")):
        pipeline.save_pretrained(str(tmp_path / name))
    sizes = [(16, 16), (16, 24)]
    one, two = (
        export_bundle(tmp_path / "prior", tmp_path / "decoder", tmp_path / f"bundle{count}", sizes[:count], progress=False)
        for count in (1, 2)
    )
    weights = sorted(path.relative_to(one) for path in one.rglob("*weights.bin"))
    assert weights and all((one / path).read_bytes() == (two / path).read_bytes() for path in weights)
    ratio = disk(two) / disk(one)
    record_property("ratio", ratio)
    print(f"two sizes take {ratio:.4f} times the disk of one, {disk(one) / 1e6:.0f} MB")
    assert ratio <= 1.02
