"""Provenance: a picture file holds all that is needed to make it again, to the last bit."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import UserError, cli
from kandinsky_mindir.runner.bundle.manifest import sealed
from kandinsky_mindir.runner.diffusion.noise import OneOfBatch, TorchGenerator
from kandinsky_mindir.runner.pictures.images import load_image
from kandinsky_mindir.runner.pictures.provenance import KEY, Provenance, as_path, as_text
from kandinsky_mindir.runner.pictures.saving import save_image
from PIL import Image

STEPS = ("--steps", "3", "--prior-steps", "2", "--quiet")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def pixels(path):
    return load_image(path).tobytes()


@pytest.fixture(scope="module")
def batch(bundles, tmp_path_factory):
    """Four pictures of two prompts, with every option that a recipe has to carry; nobody gave a seed."""
    folder = tmp_path_factory.mktemp("batch")
    status = run("generate", bundles("narrow"), "a cat", "a dog", "--images", 2, "--negative-prompt", "red",
                 "--rng", "torch", "--scheduler", "ddim", "--guidance-scale", 3, "--guidance-rescale", 0.5,
                 "--guidance-interval", 0.3, 1, "--prior-guidance-scale", 2, "--size", "16x24", *STEPS,
                 "--output", folder / "p.png")
    assert status == 0
    return [folder / f"p-{n}.png" for n in (1, 2, 3, 4)]


def test_a_picture_of_a_batch_is_made_again_alone(batch, tmp_path):
    again = tmp_path / "again.png"
    assert run("generate", "--like", batch[2], "--output", again, "--quiet") == 0
    assert again.read_bytes() == batch[2].read_bytes()
    assert pixels(batch[2]) != pixels(batch[3])


def test_what_the_recipe_says(batch, bundles):
    provenance = Provenance.read(batch[2])
    request = provenance.request
    assert (request.prompt, request.negative_prompt) == (("a dog",), ("red",)) and (request.row, request.rows) == (2, 4)
    assert request.scheduler["_class_name"] == "DDIMScheduler" and isinstance(request.seed, int)
    assert request.guidance_interval == (0.3, 1) and (request.height, request.width) == (16, 24)
    assert (provenance.bundle, provenance.grid) == (str(bundles("narrow")), False)
    with Image.open(batch[2]) as image:
        lines = image.text["parameters"].splitlines()
        json.loads(image.text[KEY], parse_constant=pytest.fail)  # JSON has no infinity
    assert lines[:2] == ["a dog", "Negative prompt: red"]
    assert lines[2].startswith("Steps: 3, Sampler: DDIMScheduler, CFG scale: 3.0, Seed: ") and "Size: 24x16" in lines[2]


def test_options_replace_the_recipe_s_and_another_bundle_is_told(batch, bundles, tmp_path, capsys):
    other, changed = tmp_path / "other", tmp_path / "changed.png"
    shutil.copytree(bundles("narrow"), other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(sealed(manifest | {"source": {"prior": "another"}}))
    assert run("generate", other, "--like", batch[2], "--seed", 9, "--output", changed, "--quiet") == 0
    assert f"warning: {other} is not the bundle that {batch[2]} was made with" in capsys.readouterr().err
    before, after = Provenance.read(batch[2]), Provenance.read(changed)
    assert after.request == before.request.replace(seed=9) and (after.request.row, after.request.rows) == (2, 4)
    assert after.bundle == str(other) and after.bundle_sha256 != before.bundle_sha256
    assert pixels(changed) != pixels(batch[2])


def test_a_grid_is_made_again(bundles, tmp_path):
    grid, again = tmp_path / "grid.png", tmp_path / "again.png"
    options = ("--images", 2, "--grid", "--seed", 1, *STEPS)
    assert run("generate", bundles("narrow"), "a cat", *options, "--output", grid) == 0
    assert run("generate", "--like", grid, "--output", again, "--quiet") == 0
    assert again.read_bytes() == grid.read_bytes()


def test_a_mix_is_made_again_from_the_same_pictures_only(batch, bundles, tmp_path, capsys):
    picture, mix, again = tmp_path / "picture.bmp", tmp_path / "mix.png", tmp_path / "again.png"
    save_image(load_image(batch[0]), picture)
    items = ("--text", "a cat", 0.5, "--image", picture, 0.5, "--negative-prior-prompt", "blue")
    assert run("interpolate", bundles("narrow"), *items, "--images", 2, "--seed", 2, *STEPS, "--output", mix) == 0
    second = tmp_path / "mix-2.png"
    assert run("interpolate", "--like", second, "--output", again, "--quiet") == 0
    assert again.read_bytes() == second.read_bytes()

    capsys.readouterr()
    assert run("generate", "--like", second) == 2
    assert "was made by interpolate: use kandinsky-mindir interpolate --like" in capsys.readouterr().err
    save_image(load_image(batch[1]), picture)
    assert run("interpolate", "--like", second, "--output", again, "--quiet") == 2
    assert f"{picture} is not the picture that was used" in capsys.readouterr().err


@pytest.mark.parametrize("parts", (1, 2))
def test_the_noise_of_one_picture_of_a_batch(parts):
    batch = TorchGenerator(3).standard_normal((parts * 5, 4, 6)).reshape(parts, 5, 4, 6)
    alone = OneOfBatch(TorchGenerator(3), 2, 5).standard_normal((parts, 4, 6))
    assert np.array_equal(alone, batch[:, 2])


DATA = Path(__file__).parents[2] / "data" / "pictures"
LINEAR = {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear", "use_karras_sigmas": True}


def test_pictures_of_the_first_form_are_read():
    """Two that version 0.1.0 wrote; its JSON holds an infinity."""
    one = Provenance.read(DATA / "format_1.png")
    assert one.request.prompt == ("a dog",) and (one.request.row, one.request.rows, one.request.seed) == (2, 4, 7)
    assert LINEAR.items() <= one.request.scheduler.items() and "lambda_min_clipped" not in one.request.scheduler
    assert (one.bundle, one.bundle_sha256[:10], one.grid) == ("bundle", "5fb826dbd0", False)
    mix = Provenance.read(DATA / "format_1_mix.png").request
    assert (mix.items[0].text, mix.items[0].weight, mix.items[1].image) == ("a cat", 0.5, "tiger.png")
    assert mix.items[1].sha256.startswith("04b47a46fb") and (mix.height, mix.width, mix.num_inference_steps) == (64, 64, 2)


@pytest.mark.parametrize("path", ["a cat.png", "кот.png", os.fsdecode(b"\xea\xee.png"), "file:cat.png", "file:%41.png", "a%41.png"])
def test_any_path_is_recorded_as_text(path):
    as_text(path).encode()
    assert as_path(as_text(path)) == Path(path)


SAMPLING = {"steps": 2, "prior_steps": 2, "guidance_scale": 2.0, "prior_guidance_scale": 2.0, "guidance_rescale": 0.0,
            "guidance_interval": [0.0, 1.0], "scheduler": {"_class_name": "DDIMScheduler"}, "images": 1, "seed": 1,
            "rng": "numpy", "size": [16, 16], "grid": False}
OLD = {"format": 1, "command": "generate", "options": {"prompt": ["a cat"], **SAMPLING}, "bundle": "bundle",
       "bundle_sha256": "0" * 64, "row": None, "rows": 1, "versions": {}}


def new(**changes):
    provenance = {"format": 2, "bundle": "bundle", "request": {"task": "text2image", "prompt": ["a cat"]}}
    if "bundle_sha256" in changes:
        provenance["bundle_sha256"] = changes.pop("bundle_sha256")
    elif changes:
        provenance["bundle_sha256"] = "0" * 64
    provenance["request"] |= changes
    return json.dumps({**provenance, "request": {name: value for name, value in provenance["request"].items() if value is not None}})


def mix(*items):
    return {"command": "interpolate", "options": {"items": items, **SAMPLING}}


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "carries no recipe"),
        ("{", "its recipe is damaged"),
        ("[]", "its recipe is damaged"),
        ({"format": 3}, "its recipe has format 3, this version reads formats 1 and 2"),
        ({"format": 2}, "its recipe is damaged (Object contains unknown field `command`)"),
        ({"command": "rm"}, "its recipe is damaged ('rm' is no command)"),
        ({"shell": "rm"}, "unknown field `shell`"),
        ({"row": 3, "rows": 2}, "picture 3 of 2"),
        ({"bundle": 3}, "Expected `str`, got `int` ... `$.bundle`"),
        ({"bundle_sha256": None}, "Expected `str`, got `null` ... `$.bundle_sha256`"),
        ({"versions": {"numpy": 1}}, "Expected `str`, got `int` ... `$.versions[...]`"),
        ({"options": OLD["options"] | {"output": "/etc/passwd"}}, "unknown field `output`"),
        ({"options": OLD["options"] | {"prompt": "a cat"}}, "Expected `array`, got `str` ... `$.prompt`"),
        ({"options": OLD["options"] | {"prompt": []}}, "length >= 1 ... `$.prompt`"),
        ({"options": OLD["options"] | {"size": [16]}}, "length >= 2 ... `$.size`"),
        ({"options": OLD["options"] | {"size": [16, -16]}}, ">= 1 ... `$.size[1]`"),
        ({"options": OLD["options"] | {"seed": True}}, "got `bool` ... `$.seed`"),
        ({"options": OLD["options"] | {"images": 0}}, ">= 1 ... `$.images`"),
        ({"options": OLD["options"] | {"guidance_scale": float("-inf")}}, "at `$.guidance_scale`"),
        ({"options": OLD["options"] | {"guidance_scale": float("nan")}}, "NaN is no JSON"),
        ({"options": OLD["options"] | {"guidance_scale": float("inf")}}, "Infinity is no JSON"),
        ({"options": OLD["options"] | {"scheduler": {"beta_start": float("-inf")}}}, "beta_start is -inf"),
        ({"options": OLD["options"] | {"scheduler": 3}}, "Expected `object`, got `int` ... `$.scheduler`"),
        ({"options": {}}, "missing required field `prompt`"),
        ({"command": "interpolate"}, "unknown field `prompt`"),
        (mix({"text": "a cat"}), "required field `weight` ...  `$.items[0]`"),
        (mix({"text": "a cat", "weight": "1"}), "Expected `float`, got `str` ... `$.items[0].weight`"),
        (mix({"text": 3, "weight": 1}), "at `$.items[0].text`"),
        (mix({"weight": 1}), "an item must be a text or a picture"),
        (mix({"text": "a cat", "image": "cat.png", "weight": 1}), "an item must be a text or a picture"),
        (mix(), "length >= 1 ... `$.items`"),
        (new(), "required field `bundle_sha256`"),
        (new(bundle_sha256=3), "Expected `str`, got `int` ... `$.bundle_sha256`"),
        (new(task="paint"), "task is 'paint'"),
        (new(num_inference_steps=0), "num_inference_steps is 0"),
        (new(guidance_scale="2"), "Expected `float | null`, got `str`"),
        (new(guidance_scale=float("-inf")), "-inf is no number of JSON"),
        (new(scheduler={"_class_name": "Magic"}), "scheduler class 'Magic' is not known"),
        (new(scheduler={"_class_name": "DDIMScheduler", "beta_start": "x"}), "beta_start"),
        (new(scheduler={"_class_name": "DDIMScheduler", "num_train_timesteps": 10**15}), "its recipe is damaged"),
        (new(task="interpolate", prompt=None, items=[{"text": "a cat"}]), "weight"),
        ("[" * 100_000, "its recipe is damaged"),
        (json.dumps({"format": 1, "bundle": "x" * 2**20}), "cannot be read: it has a text of"),
    ],
)
def test_recipes_of_others(text, message, tmp_path, capsys):
    path = tmp_path / "p.png"
    if isinstance(text, dict):
        text = json.dumps(OLD | text)
    save_image(Image.new("RGB", (2, 2)), path, text={KEY: text} if text else None)
    assert run("generate", "--like", path) == 2
    error = capsys.readouterr().err
    assert all(words in error for words in message.split(" ... ")) and str(path) in error and error.count("\n") == 1


def test_only_png_holds_a_recipe(tmp_path):
    path = tmp_path / "p.jpg"
    save_image(Image.new("RGB", (2, 2)), path)
    with pytest.raises(UserError, match="carries no recipe: only PNG files"):
        Provenance.read(path)
