"""The C++ program makes the pictures that Python makes from pictures to start from, masks and depth hints, bit for bit."""

import json

import family
import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, Request
from kandinsky_mindir.runner.pictures.provenance import Provenance
from native_program import arguments, check, made_by, run
from PIL import Image

pytestmark = pytest.mark.slow  # the build takes minutes

IMAGE, MASK, HINT = ({name: [{"image": f"{name}.png"}]} for name in ("image", "mask_image", "hint"))
FEW = {"task": "text2image", "prompt": ["a tiger"], "seed": 7, "num_inference_steps": 5, "prior_num_inference_steps": 2}
ROWS = [
    {**IMAGE, "strength": 0.61, "num_images_per_prompt": 2, "scheduler": "ddpm"},
    {**IMAGE, "prompt": ["a cat", "a dog"], "scheduler": "dpmpp-2m", "rng": "torch"},
    {**IMAGE, **MASK, "num_images_per_prompt": 2, "scheduler": "euler"},
    {**IMAGE, **MASK, "paste": True, "guidance_scale": 1.0},
    {**HINT, "num_images_per_prompt": 2, "guidance_interval": [0.0, 0.5]},
    {**IMAGE, **HINT, "strength": 0.8, "scheduler": "euler-a"},
]  # fmt: skip
MIX = {**FEW, "task": "interpolate", "items": [{"text": "a cat", "weight": 0.4}, {"image": "hint.png", "weight": 0.6}]}
del MIX["prompt"]


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("family"))
    pipeline.set_progress_bar_config(disable=True)
    yield pipeline
    pipeline.unload()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with pictures of several sizes."""
    monkeypatch.chdir(tmp_path)
    family.image(61, 47).save("image.png")
    Image.fromarray((255 * family.mask((33, 50))).astype(np.uint8)).save("mask_image.png")
    Image.fromarray((255 * family.hint((70, 41)).transpose(1, 2, 0)).astype(np.uint8)).save("hint.png")
    family.image(20, 90, 3).save("other.png")
    return tmp_path


@pytest.mark.parametrize("fields", ROWS, ids=str)
def test_pictures(kandinsky, pipeline, bundles, folder, fields):
    check(kandinsky, pipeline, bundles("family"), {**FEW, **fields}, folder / "out")


def test_a_mix_that_starts_from_a_picture(kandinsky, pipeline, bundles, folder):
    check(kandinsky, pipeline, bundles("family"), {**MIX, **IMAGE, "strength": 0.5}, folder / "out")


def test_like(kandinsky, pipeline, bundles, folder):
    """One of two, from its recipe; from another folder; with another mask; and not from a picture that is another now."""
    fields = {**FEW, **IMAGE, **MASK, "num_images_per_prompt": 2}
    expected = [np.asarray(picture.image) for picture in pipeline.make(Request.from_dict(fields))]
    _, recipe = made_by(kandinsky, bundles("family"), fields, folder / "out")
    picture = next(picture for picture in pipeline.make(Request.from_dict(fields)))
    assert json.loads(recipe.request.to_json()) == json.loads(picture.request.replace(scheduler=recipe.request.scheduler).to_json())
    (elsewhere := folder / "elsewhere").mkdir()
    again = kandinsky("generate", "--like", folder / "out" / "picture-2.png", "-o", elsewhere / "again.png", cwd=elsewhere)
    assert again.returncode == 0, again.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(elsewhere / "again.png")), expected[1])
    assert Provenance.read(elsewhere / "again.png").request.row == 1
    family.image(61, 47, 9).save("image.png")
    refused = kandinsky("generate", "--like", folder / "out" / "picture-2.png", "-o", "no.png", cwd=folder)
    assert (refused.returncode, refused.stderr) == (
        2, "kandinsky: error: image.png is not the picture that was used: give it with --init-image\n"), refused.stderr


def test_a_picture_for_each_prompt(kandinsky, pipeline, bundles, folder):
    """As the library takes them."""
    fields = {**FEW, "prompt": ["a cat", "a dog"], "num_images_per_prompt": 2, "image": [{"image": "image.png"}, {"image": "other.png"}],
              **MASK, "paste": True}
    expected = [np.asarray(picture.image) for picture in pipeline.make(Request.from_dict(fields))]
    made = run(kandinsky.folder / "example", bundles("family"), json.dumps(fields), "all.ppm", env=kandinsky.environment)
    assert made.returncode == 0, made.stderr
    _, pixels = (folder / "all.ppm").read_bytes().split(b"\n", 1)
    np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8).reshape(16, 24, 3), expected[-1])


def test_refusals(kandinsky, bundles, folder):
    """In Python's words, before anything is loaded."""
    pipe = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    rows = [(HINT, "has no controlnet decoder: export it again, with that checkpoint as one more --decoder"),
            ({**IMAGE, **MASK}, "has no inpaint decoder: export it again"),
            ({**IMAGE, "strength": 0.1}, "strength 0.1 makes none of 5 steps: give at least 0.2, or more steps"),
            ({**IMAGE, "strength": 1.23456e-05, "num_inference_steps": 1000},
             "strength 1.23456e-05 makes none of 1000 steps: give at least 0.001, or more steps"),
            ({**IMAGE, "strength": 1.5}, "strength is 1.5: it must be above 0"),
            (MASK, "a request cannot bring mask_image alone: known are image; image and mask_image; hint; image and hint"),
            ({**IMAGE, **MASK, "strength": 0.5}, "strength has no meaning with a mask"),
            ({"strength": 0.5}, "strength is of a picture to start from"), ({**IMAGE, "paste": True}, "paste is of a picture and a mask"),
            ({"image": [{"image": "none.png"}]}, "none.png cannot be read: it is not there")]  # fmt: skip
    for fields, words in rows:
        result = kandinsky("generate", bundles("narrow"), "a tiger", *arguments({**FEW, **fields}), cwd=folder)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1) and words in result.stderr, result.stderr
        with pytest.raises(Exception, match=".") as caught:
            next(pipe.make(Request.from_dict({**FEW, **fields})))
        assert words in str(caught.value)
    assert not (folder / "picture.png").exists()
