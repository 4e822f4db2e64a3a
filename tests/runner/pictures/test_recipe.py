"""Recipes: a picture file holds all that is needed to make it again, to the last bit."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from kandinsky_mindir.runner import UserError, cli
from kandinsky_mindir.runner.bundle.manifest import sealed
from kandinsky_mindir.runner.diffusion.noise import OneOfBatch, TorchGenerator
from kandinsky_mindir.runner.pictures.images import load_image
from kandinsky_mindir.runner.pictures.provenance import KEY, Recipe
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
    recipe = Recipe.read(batch[2])
    assert recipe.options["prompt"] == ["a dog"] and (recipe.row, recipe.rows) == (2, 4)
    assert recipe.options["scheduler"]["_class_name"] == "DDIMScheduler"
    assert recipe.options["guidance_interval"] == [0.3, 1] and recipe.options["size"] == [16, 24]
    assert isinstance(recipe.options["seed"], int)
    with Image.open(batch[2]) as image:
        lines = image.text["parameters"].splitlines()
    assert lines[:2] == ["a dog", "Negative prompt: red"]
    assert lines[2].startswith("Steps: 3, Sampler: DDIMScheduler, CFG scale: 3.0, Seed: ") and "Size: 24x16" in lines[2]


def test_options_replace_the_recipe_s_and_another_bundle_is_told(batch, bundles, tmp_path, capsys):
    other, changed = tmp_path / "other", tmp_path / "changed.png"
    shutil.copytree(bundles("narrow"), other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(sealed(manifest | {"source": {"prior": "another"}}))
    assert run("generate", other, "--like", batch[2], "--seed", 9, "--output", changed, "--quiet") == 0
    assert f"warning: {other} is not the bundle that {batch[2]} was made with" in capsys.readouterr().err
    before, after = Recipe.read(batch[2]), Recipe.read(changed)
    assert after.options == {**before.options, "seed": 9} and (after.row, after.rows) == (2, 4)
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
    assert f"{picture} is not the picture that was mixed" in capsys.readouterr().err


@pytest.mark.parametrize("parts", (1, 2))
def test_the_noise_of_one_picture_of_a_batch(parts):
    batch = TorchGenerator(3).standard_normal((parts * 5, 4, 6)).reshape(parts, 5, 4, 6)
    alone = OneOfBatch(TorchGenerator(3), 2, 5).standard_normal((parts, 4, 6))
    assert np.array_equal(alone, batch[:, 2])


SAMPLING = {"steps": 2, "prior_steps": 2, "guidance_scale": 2.0, "prior_guidance_scale": 2.0, "guidance_rescale": 0.0,
            "guidance_interval": [0.0, 1.0], "scheduler": {"_class_name": "DDIMScheduler"}, "images": 1, "seed": 1,
            "rng": "numpy", "size": [16, 16], "grid": False}
GOOD = Recipe("generate", {"prompt": ["a cat"], **SAMPLING}, "bundle", "0" * 64)


def mix(*items):
    return {"command": "interpolate", "options": {"items": items, **SAMPLING}}


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "carries no recipe"),
        ("{", "its recipe is damaged"),
        ("[]", "its recipe is damaged"),
        ({"format": 2}, "its recipe has format 2, this version reads format 1"),
        ({"command": "rm"}, "its recipe is damaged ('rm' is no command)"),
        ({"shell": "rm"}, "unknown field `shell`"),
        ({"row": 3, "rows": 2}, "picture 3 of 2"),
        ({"bundle": 3}, "Expected `str`, got `int` ... `$.bundle`"),
        ({"bundle_sha256": None}, "Expected `str`, got `null` ... `$.bundle_sha256`"),
        ({"versions": {"numpy": 1}}, "Expected `str`, got `int` ... `$.versions[...]`"),
        ({"options": GOOD.options | {"output": "/etc/passwd"}}, "unknown field `output`"),
        ({"options": GOOD.options | {"prompt": "a cat"}}, "Expected `array`, got `str` ... `$.prompt`"),
        ({"options": GOOD.options | {"prompt": []}}, "length >= 1 ... `$.prompt`"),
        ({"options": GOOD.options | {"size": [16]}}, "length >= 2 ... `$.size`"),
        ({"options": GOOD.options | {"size": [16, -16]}}, ">= 1 ... `$.size[1]`"),
        ({"options": GOOD.options | {"seed": True}}, "got `bool` ... `$.seed`"),
        ({"options": GOOD.options | {"images": 0}}, ">= 1 ... `$.images`"),
        ({"options": GOOD.options | {"guidance_scale": float("-inf")}}, "at `$.guidance_scale`"),
        ({"options": GOOD.options | {"guidance_scale": float("nan")}}, "NaN is no JSON"),
        ({"options": GOOD.options | {"guidance_scale": float("inf")}}, "Infinity is no JSON"),
        ({"options": GOOD.options | {"scheduler": {"beta_start": float("-inf")}}}, "beta_start is -inf"),
        ({"options": GOOD.options | {"scheduler": 3}}, "Expected `object`, got `int` ... `$.scheduler`"),
        ({"options": {}}, "missing required field `prompt`"),
        ({"command": "interpolate"}, "unknown field `prompt`"),
        (mix({"text": "a cat"}), "required field `weight` ...  `$.items[0]`"),
        (mix({"text": "a cat", "weight": "1"}), "Expected `float`, got `str` ... `$.items[0].weight`"),
        (mix({"text": 3, "weight": 1}), "at `$.items[0].text`"),
        (mix({"weight": 1}), "an item must be a text or a picture"),
        (mix({"text": "a cat", "image": "cat.png", "weight": 1}), "an item must be a text or a picture"),
        (mix(), "length >= 1 ... `$.items`"),
        ("[" * 100_000, "its recipe is damaged"),
        (json.dumps({"format": 1, "bundle": "x" * 2**20}), "cannot be read: it has a text of"),
    ],
)
def test_recipes_of_others(text, message, tmp_path, capsys):
    path = tmp_path / "p.png"
    if isinstance(text, dict):
        text = json.dumps(asdict(GOOD) | text)
    save_image(Image.new("RGB", (2, 2)), path, text={KEY: text} if text else None)
    assert run("generate", "--like", path) == 2
    error = capsys.readouterr().err
    assert all(words in error for words in message.split(" ... ")) and str(path) in error and error.count("\n") == 1


def test_only_png_holds_a_recipe(tmp_path):
    path = tmp_path / "p.jpg"
    save_image(Image.new("RGB", (2, 2)), path)
    with pytest.raises(UserError, match="carries no recipe: only PNG files"):
        Recipe.read(path)
