"""Decoders of one bundle: which kind each is, that no two are of one, and that they share their MoVQ."""

import json
import shutil

import checkpoints
import numpy as np
import pytest
import references
import torch
from kandinsky_mindir.export.bundle import export_bundle
from kandinsky_mindir.export.checkpoint.decoders import by_kind, require_one_movq
from kandinsky_mindir.export.checkpoint.tensor_names import SOURCES
from kandinsky_mindir.export.further_sizes import add_sizes
from kandinsky_mindir.models.config import UNetConfig
from kandinsky_mindir.runner import Bundle, UserError
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import verify
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoders")
    _, decoder = checkpoints.save("narrow", folder)
    return {"decoder": decoder, **{kind: checkpoints.save_conditioned(kind, folder) for kind in ("inpaint", "controlnet")}}


def test_kinds(folders):
    found = by_kind([folders["controlnet"], folders["decoder"], folders["inpaint"]])
    assert {kind: checkpoint.path for kind, checkpoint in found.items()} == folders and list(found) == list(folders)
    require_one_movq(list(found.values()))
    for given, message in (
        ([folders["inpaint"]] * 2, "are both decoders for inpainting: a bundle holds one of a kind"), ([], "no decoder is given"),
    ):
        with pytest.raises(UserError, match=message):
            by_kind(given)


@pytest.mark.parametrize("options, kind, latents", (
    ({"in_channels": 4, "out_channels": 8}, "decoder", 4), ({"in_channels": 3, "out_channels": 3}, "decoder", 3),
    ({"in_channels": 9, "out_channels": 8}, "inpaint", 4), ({"in_channels": 9, "out_channels": 4}, "inpaint", 4),
    ({"in_channels": 8, "out_channels": 8, "addition_embed_type": "image_hint"}, "controlnet", 4),
))  # fmt: skip
def test_a_configuration_tells_the_kind(options, kind, latents):
    config = UNetConfig.from_dict({**references.CONFIGURATIONS["unet"]["dummy"], **options})
    assert (config.decoder, config.latent_channels) == (kind, latents)


def test_conv_in_is_cut_in_two():
    """A convolution of all channels is that of latents and that of the rest."""
    weight = np.random.default_rng(0).standard_normal((5, 9, 3, 3)).astype(np.float32)
    sources = SOURCES["inpaint_unet"](("conv_in.weight",))
    latents, rest = (sources[name].combine(weight) for name in ("conv_in.weight", "conv_in_context.weight"))
    assert latents.shape == (5, 3, 3, 4) and rest.shape == (5, 3, 3, 5)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 9, 4, 6)).astype(np.float32))

    def convolved(x, kernel):
        return torch.nn.functional.conv2d(x, torch.from_numpy(np.ascontiguousarray(kernel)), padding=1).numpy()

    parts = convolved(x[:, :4], latents.transpose(0, 3, 1, 2)) + convolved(x[:, 4:], rest.transpose(0, 3, 1, 2))
    # 81 products of order one, added in another order: ten roundings of 6e-8 of a sum of about nine.
    np.testing.assert_allclose(parts, convolved(x, weight), rtol=0, atol=6e-6)


def test_another_movq_is_refused(folders, tmp_path):
    other = shutil.copytree(folders["inpaint"], tmp_path / "inpaint")
    path = other / "movq" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["quant_conv.bias"] = tensors["quant_conv.bias"] + 1
    save_file(tensors, path)
    with pytest.raises(UserError, match="the MoVQ of .*inpaint is not that of .*decoder, and a bundle holds one"):
        require_one_movq(list(by_kind([folders["decoder"], other]).values()))


def test_each_part_is_there_once(bundles):
    bundle = Bundle(bundles("family"))
    manifest = bundle.manifest
    assert sorted(name for name in manifest.files if name.endswith("/weights.bin")) == [
        f"{part}/weights.bin"
        for part in ("controlnet_unet", "image_encoder", "inpaint_unet", "movq", "prior", "text_encoder", "unet")
    ]
    assert set(manifest.schedulers) == set(manifest.defaults) == {"prior", "decoder", "inpaint", "controlnet"}
    assert json.loads((bundle.path / "manifest.json").read_text())["source"]["inpaint"] == "inpaint"


def test_a_size_more_needs_every_decoder(bundles, folders):
    with pytest.raises(UserError, match="has a decoder for inpainting and depth, too: give the folder of that checkpoint"):
        add_sizes(bundles("family"), folders["decoder"], [(16, 16)], progress=False)


@pytest.mark.slow
def test_a_size_more(bundles, engine, tmp_path, folders):
    bundle = shutil.copytree(bundles("family"), tmp_path / "bundle")
    add_sizes(bundle, list(folders.values()), [(16, 16)], progress=False)
    opened = Bundle(bundle)
    assert all(opened.manifest.find(name, 1, (16, 16)) for name in ("inpaint_map", "controlnet_map", "inpaint_unet", "movq_encoder"))
    assert all(verdict.right for verdict in verify(Models(opened, engine, keep_loaded=False)))


@pytest.mark.slow
def test_a_bundle_of_one_kind(engine, tmp_path, folders, capsys):
    """It says what it lacks; its only decoder's sizes and steps are its defaults."""
    from kandinsky_mindir.runner import KandinskyV22Pipeline, cli

    prior, _ = checkpoints.save("narrow", tmp_path)
    bundle = export_bundle(prior, folders["inpaint"], tmp_path / "bundle", [(16, 16)], progress=False)
    assert cli.main(["inspect", str(bundle)]) == 0, capsys.readouterr()
    with pytest.raises(UserError, match="this bundle has no unet_context: export it again with that part"):
        KandinskyV22Pipeline.from_pretrained(bundle)(np.ones((1, 32), np.float32), num_inference_steps=2)
