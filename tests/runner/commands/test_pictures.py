"""generate and interpolate from a picture: what they make, and that the recipe in the PNG makes it again."""

import numpy as np
import pytest
from kandinsky_mindir.runner import InputPicture, KandinskyV22CombinedPipeline, Request, UserError, cli
from kandinsky_mindir.runner.pictures.provenance import Provenance
from PIL import Image

OPTIONS = ["--steps", "4", "--prior-steps", "2", "--size", "16x24", "--seed", "4", "--quiet"]


@pytest.fixture
def start(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    return tmp_path / "start.png"


@pytest.fixture
def run(capsys):
    def run(*arguments, status=0):
        assert cli.main([str(argument) for argument in arguments]) == status, capsys.readouterr().err
        return capsys.readouterr().err

    return run


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("command, subject", (
    ("generate", ["a cat"]), pytest.param("interpolate", ["--text", "a cat", "1"], marks=pytest.mark.slow)))
def test_from_a_picture_and_again(command, subject, start, run, bundles, tmp_path):
    bundle, once, again, more = bundles("narrow"), tmp_path / "once.png", tmp_path / "again.png", tmp_path / "more.png"
    run(command, bundle, *subject, "--init-image", start, "--strength", "0.5", *OPTIONS, "--output", once)
    recipe = Provenance.read(once).request
    assert recipe.strength == 0.5 and recipe.image[0].image == str(start) and len(recipe.image[0].sha256) == 64
    run(command, "--like", once, "--output", again, "--quiet")
    assert np.array_equal(pixels(once), pixels(again))
    run(command, "--like", once, "--strength", "1", "--output", more, "--quiet")
    assert not np.array_equal(pixels(once), pixels(more))
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    (made,) = pipeline.make(recipe)
    assert np.array_equal(np.asarray(made.image), pixels(once))


def test_a_changed_picture_is_refused(start, run, bundles, tmp_path):
    once = tmp_path / "once.png"
    run("generate", bundles("narrow"), "a cat", "--image", start, "--strength", "0.5", *OPTIONS, "--output", once)
    Image.new("RGB", (20, 30)).save(start)
    error = run("generate", "--like", once, "--output", tmp_path / "again.png", "--quiet", status=2)
    assert "start.png is not the picture that was used: give it with --init-image" in error and error.count("\n") == 1
    assert not (tmp_path / "again.png").exists()


def test_bad_options(start, run, bundles, tmp_path):
    before = sorted(tmp_path.iterdir())
    for options, message in (
        (["--strength", "0.5"], "strength is of a picture to start from: give an image, too"),
        (["--image", start, "--strength", "0.1"], "strength 0.1 makes none of 4 steps: give at least 0.25"),
        (["--image", start, "--strength", "2"], "strength is 2: it must be above 0"),
        (["--image", tmp_path / "no.png"], "no.png cannot be read: it is not there"),
        (["--image", start, "--output", start], "start.png"),
    ):
        output = [] if "--output" in options else ["--output", tmp_path / "picture.png"]
        error = run("generate", bundles("narrow"), "a cat", *options, *OPTIONS, *output, status=2)
        assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_plan_counts_the_encoder(start, run, bundles, capsys):
    cli.main(["generate", str(bundles("narrow")), "a cat", "--image", str(start), "--strength", "0.5", *OPTIONS, "--plan"])
    assert "movq_encoder batch 1 16x24" in capsys.readouterr().out


def test_requests():
    """JSON gives the pictures back; each of two belongs to its prompt; what does not fit is refused by name."""
    one, two = InputPicture(image="a.png"), InputPicture(sha256="0f" * 32)
    request = Request(task="text2image", prompt=["a", "b"], image=[one, two], num_images_per_prompt=2, seed=1)
    assert Request.from_json(request.to_json()) == request and request.complete({}).strength == 0.3
    assert [request.alone(row).image for row in range(4)] == [(one,), (one,), (two,), (two,)]
    assert Request(task="text2image", prompt=["a", "b"], image=[one]).alone(1).image == (one,)
    for wrong, message in (
        ({"image": [one, two]}, "image has 2 pictures and prompt has 1"), ({"image": ["a.png"]}, "image must be a list of pictures"),
        ({"strength": 0.5}, "give an image, too"), ({"image": [one], "strength": 0}, "strength is 0"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            Request(task="text2image", prompt="a", **wrong)
    with pytest.raises(UserError, match="an image or a sha256"):
        InputPicture()


@pytest.mark.parametrize("names", (("image", "mask_image"), ("hint",), ("image", "hint")), ids="+".join)
def test_masks_and_hints(names, start, run, bundles, tmp_path):
    """The recipe names all that was brought, and makes the picture again; kept pixels are the picture's own with --paste."""
    mask, once, again = tmp_path / "mask.png", tmp_path / "once.png", tmp_path / "again.png"
    white = np.zeros((20, 30), np.uint8)
    white[5:12, 4:20] = 255
    Image.fromarray(white).save(mask)
    options = {"image": ["--image", start], "mask_image": ["--mask", mask, "--paste"], "hint": ["--hint", start]}
    given = [word for name in names for word in options[name]]
    run("generate", bundles("family"), "a cat", *given, *OPTIONS, "--output", once)
    recipe = Provenance.read(once).request
    assert recipe.brings == names and recipe.paste == ("mask_image" in names)
    run("generate", "--like", once, "--output", again, "--quiet")
    assert np.array_equal(pixels(once), pixels(again))
    if recipe.paste:
        black = np.asarray(Image.fromarray(white).resize((24, 16), Image.Resampling.LANCZOS)) < 128
        with Image.open(start) as image:
            own = np.asarray(image.resize((24, 16), Image.Resampling.BICUBIC, reducing_gap=1))
        assert np.array_equal(pixels(once)[black], own[black])


def test_what_a_mask_and_a_hint_need(start, run, bundles, tmp_path):
    for options, message in (
        (["--mask", start], "a request cannot bring mask_image alone: known are image; image and mask_image"),
        (["--image", start, "--mask", start, "--strength", "0.5"], "strength has no meaning with a mask"),
        (["--image", start, "--paste"], "paste is of a picture and a mask"),
        (["--image", start, "--mask", start], "has no inpaint decoder: export it again, with that checkpoint as one more --decoder"),
        (["--hint", start], "has no controlnet decoder"),
    ):
        error = run("generate", bundles("narrow"), "a cat", *options, *OPTIONS, "--output", tmp_path / "picture.png", status=2)
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "picture.png").exists()
