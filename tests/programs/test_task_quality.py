"""The shipped inpainting and depth checkpoints are what their model cards say."""

import json

import numpy as np
import pytest
import task_quality
import torch
from diffusers import UNet2DConditionModel
from emoji import training_pictures
from hints import RIM, height_map, moved, overlap, silhouette
from PIL import Image
from references import MICRO


def test_a_hint_is_the_height_of_a_silhouette_that_was_moved():
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (10, 20, 50, 50))
    picture.paste("white", (20, 30, 30, 40))  # a hole, which is filled
    assert silhouette(picture).sum() == 40 * 30
    inside = silhouette(moved(picture, 0.5, 1, 0, False))
    assert inside.sum() == 20 * 15 and inside[49:, :20].all()
    assert overlap(inside, silhouette(picture)) == 10 / (20 * 15 + 40 * 30 - 10)  # half a row
    heights = np.asarray(height_map(inside)) / 255
    distance = 8  # of the innermost points to what is outside
    assert heights[~inside].max() == 0 and heights.max() == 1
    assert heights[49, 0] == pytest.approx(RIM + (1 - RIM) * np.sqrt(1 / distance), abs=1 / 255)


def test_mirroring_turns_the_shape():
    cat = Image.fromarray(np.uint8(255 * training_pictures(1)[0]))
    straight, mirrored = (np.asarray(moved(cat, 0.7, 0.5, float(flag), flag)) for flag in (False, True))
    assert (straight[:, ::-1] == mirrored).all() and (straight != mirrored).any()


@pytest.mark.parametrize(("folder", "channels"), [("decoder-inpaint", 9), ("decoder-depth", 8)])
def test_the_folders_are_the_decoders_but_for_the_unet(folder, channels):
    for file in ("movq/config.json", "movq/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        assert (MICRO / folder / file).read_bytes() == (MICRO / "decoder" / file).read_bytes()
    own, plain = (json.loads((MICRO / name / "unet" / "config.json").read_text()) for name in (folder, "decoder"))
    changed = {name: value for name, value in own.items() if plain[name] != value}
    assert changed.pop("in_channels") == channels
    assert changed == ({"addition_embed_type": "image_hint"} if folder == "decoder-depth" else {})


def test_the_hint_block_averages_quarters_of_latents():
    """To 1e-3: seven SiLUs, each within 12 * exp(-12) = 8e-5 of the identity from 12 on."""
    unet = UNet2DConditionModel.from_pretrained(MICRO / "decoder-depth" / "unet", torch_dtype=torch.float32)
    values = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = unet.add_embedding.input_hint_block(values.expand(-1, 3, -1, -1))
    quarters = torch.nn.functional.pixel_unshuffle(torch.nn.functional.avg_pool2d(values, 4), 2)
    assert made.shape == (1, 4, 16, 16) and (made - quarters).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("maker, count", (("diffusers", 4), ("lite", 8)))
@pytest.mark.parametrize("task", task_quality.TASKS)
def test_pictures_are_right(task, maker, count, bundles):
    made_by = task_quality.Lite(bundles("micro-family")) if maker == "lite" else task_quality.Diffusers()
    results = [result for result, _ in task_quality.TASKS[task](task_quality.Asked(count, 1, made_by))]
    assert all(result["right"] and result.get("kept", True) and result.get("covers", True) for result in results), results
