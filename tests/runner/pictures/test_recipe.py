"""Recipes: a picture file holds all that is needed to make it again, to the last bit."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from kandinsky_mindir.runner import UserError, cli
from kandinsky_mindir.runner.bundle.manifest import sealed
from kandinsky_mindir.runner.diffusion.noise import OneOfBatch, TorchGenerator
from kandinsky_mindir.runner.pictures.images import load_image, save_image
from kandinsky_mindir.runner.pictures.provenance import KEY, Recipe
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


GOOD = Recipe("generate", {"prompt": ["a cat"], "size": [16, 16]}, "bundle", "0" * 64)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "carries no recipe"),
        ("{", "its recipe is damaged"),
        ("[]", "its recipe is damaged"),
        ({"format": 2}, "its recipe has format 2, this version reads format 1"),
        ({"command": "rm"}, "its recipe is damaged ('rm')"),
        ({"shell": "rm"}, "unexpected keyword argument 'shell'"),
        ({"row": 3, "rows": 2}, "picture 3 of 2"),
        ({"bundle": 3}, "bundle is 3"),
        ({"options": {"output": "/etc/passwd"}}, "its recipe is damaged ('output')"),
        ({"options": {"prompt": "a cat", "size": [16, 16]}}, "prompt is 'a cat'"),
        ({"options": {"prompt": ["a cat"], "size": [16]}}, "size is [16]"),
        ({"options": {"prompt": ["a cat"], "size": [16, 16], "seed": True}}, "seed is True"),
        ({"options": {"size": [16, 16]}}, "its recipe is damaged ('prompt')"),
    ],
)
def test_recipes_of_others(text, message, tmp_path, capsys):
    path = tmp_path / "p.png"
    if isinstance(text, dict):
        text = json.dumps(asdict(GOOD) | text)
    save_image(Image.new("RGB", (2, 2)), path, text={KEY: text} if text else None)
    assert run("generate", "--like", path) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error and error.count("\n") == 1


def test_only_png_holds_a_recipe(tmp_path):
    path = tmp_path / "p.jpg"
    save_image(Image.new("RGB", (2, 2)), path)
    with pytest.raises(UserError, match="carries no recipe: only PNG files"):
        Recipe.read(path)
