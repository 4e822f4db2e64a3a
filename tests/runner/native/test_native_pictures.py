"""The C++ program makes the pictures that the Python runner makes, bit for bit."""

import json
import os
import shutil

import numpy as np
import pytest
from checkpoints import pipelines
from kandinsky_mindir.export.lora.adapter import Given
from kandinsky_mindir.export.lora.merging import merge_bundle
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, Request, make_image_grid
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.pictures.provenance import Provenance
from kandinsky_mindir.runner.upkeep.packing import pack
from loras import SPELLINGS, lora, modules, save
from native_program import arguments, check, made_by
from PIL import Image
from stored import stored_again

pytestmark = pytest.mark.slow  # the build takes minutes

PROMPTS = ["a tiger", "a red cat, 4k photo", "Ёлка и снег", "富士山の夜明け", "🐱 on a 🛹", "", "naïve café", "don't stop " * 60, "x", "A  B\tC"]
SAMPLERS = ["checkpoint", "ddpm", "ddim", "dpmpp-2m", "dpmpp-2m-karras", "dpmpp-2m-exponential", "dpmpp-2m-sde", "dpmpp-3m",
            "euler", "euler-karras", "euler-a"]  # fmt: skip
MIXES = [
    ([("text", "a cat", 0.3), ("image", "cat.png", 0.7)], {}),
    ([("text", "a red heart", 0.5), ("text", "a blue heart", 0.5)], {"negative_prompt": ["ugly"]}),
    ([("image", "cat.png", 1.0)], {"negative_prior_prompt": "blurred"}),
    ([("text", "a dog", -0.5), ("image", "dog.jpg", 0.8), ("text", "a house", 0.9)], {"num_images_per_prompt": 2}),
    ([("image", "dog.jpg", 0.2), ("image", "cat.png", 0.9)],
     {"negative_prompt": ["dark"], "negative_prior_prompt": "flat", "prior_guidance_scale": 1.0}),
]
FEW = {"num_inference_steps": 4, "prior_num_inference_steps": 3}
OPTIONS = [
    {"num_images_per_prompt": 3},
    {"num_images_per_prompt": 3, "scheduler": "ddpm"},
    {"prompt": ["a cat", "a dog"], "negative_prompt": ["ugly", "ugly"], "num_images_per_prompt": 2},
    {"guidance_scale": 1.0},
    {"prior_guidance_scale": 1.0, "negative_prompt": ["ugly"]},
    {"guidance_rescale": 0.7, "guidance_scale": 7.5},
    {"guidance_interval": [0.2, 0.7]},
    {"height": 16, "width": 24},
    {"seed": 2**40 + 3},
    {"rng": "torch", "num_images_per_prompt": 2},
    {"rng": "torch", "seed": -1},
    {"rng": "numpy-legacy"},
    {"num_inference_steps": 1, "prior_num_inference_steps": 1},
]


@pytest.mark.parametrize("weights", ["checkpoint", "int8"])
def test_narrower_weights(kandinsky, bundles, tmp_path, weights):
    """As the checkpoint has them, float16, and int8 for some: with Winograd's transform, and large enough to be widened late."""
    bundle = bundles("micro") if weights == "checkpoint" else stored_again(bundles("micro"), tmp_path / "bundle", weights)
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    check(kandinsky, pipeline, bundle, text(), tmp_path / "out")


def test_merged_weights(kandinsky, bundles, tmp_path):
    """A merge's, which lie beside the others as float32."""
    unet = pipelines("micro")[1].unet
    file = save(tmp_path / "lora.safetensors", SPELLINGS["peft"]("unet", lora(unet, modules(unet, "unet"))))
    merge_bundle(bundles("micro"), [Given(file)], tmp_path / "bundle", progress=False)
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(tmp_path / "bundle")
    pipeline.set_progress_bar_config(disable=True)
    check(kandinsky, pipeline, tmp_path / "bundle", text(), tmp_path / "out")
    result = kandinsky("verify", tmp_path / "bundle", "--part", "unet")
    assert result.returncode == 0 and result.stdout.count(" right\n") == 3, result.stdout + result.stderr


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    yield pipeline
    pipeline.unload()


def text(**fields):
    return {"task": "text2image", "prompt": ["a tiger"], "seed": 7, **FEW, **fields}


def mix(items, fields):
    return {"task": "interpolate", "items": [{kind: value, "weight": weight} for kind, value, weight in items], "seed": 5, **FEW, **fields}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Pictures of the mixes, in the working folder."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for name, size in (("cat.png", (40, 31, 3)), ("dog.jpg", (25, 60, 3))):
        Image.fromarray(random.integers(0, 256, size, np.uint8)).save(name)
    return tmp_path


def test_a_text_and_a_mix(kandinsky, pipeline, bundles, pictures):
    check(kandinsky, pipeline, bundles("narrow"), text(num_images_per_prompt=2, scheduler="ddpm"), pictures / "out")
    check(kandinsky, pipeline, bundles("narrow"), mix(*MIXES[0]), pictures / "mix")


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_prompts(kandinsky, pipeline, bundles, tmp_path, number):
    rng = ["numpy", "torch"][number % 2]
    check(kandinsky, pipeline, bundles("narrow"), text(prompt=[PROMPTS[number]], seed=number, rng=rng), tmp_path / "out")


@pytest.mark.parametrize("number", range(len(MIXES)))
def test_mixes(kandinsky, pipeline, bundles, pictures, number):
    check(kandinsky, pipeline, bundles("narrow"), mix(*MIXES[number]), pictures / "out")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(kandinsky, pipeline, bundles, tmp_path, sampler):
    check(kandinsky, pipeline, bundles("narrow"), text(scheduler=sampler, num_inference_steps=6), tmp_path / "out")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(kandinsky, pipeline, bundles, tmp_path, options):
    check(kandinsky, pipeline, bundles("narrow"), text(**options), tmp_path / "out")


def test_like(kandinsky, pipeline, bundles, tmp_path):
    """The second picture of three, made again alone from its recipe by the C++ program."""
    request = Request.from_dict(text(num_images_per_prompt=3))
    expected = [np.asarray(picture.image) for picture in pipeline.make(request)]
    result = kandinsky("generate", bundles("narrow"), "a tiger", *arguments(text(num_images_per_prompt=3)), "-o", tmp_path / "p.png")
    assert result.returncode == 0, result.stderr
    result = kandinsky("generate", "--like", tmp_path / "p-2.png", "-o", tmp_path / "again.png")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again.png")), expected[1])


def test_verify(kandinsky, bundles):
    result = kandinsky("verify", bundles("narrow"), "--part", "unet")
    assert result.returncode == 0 and result.stdout.count(" right\n") == 5, result.stdout + result.stderr


def test_recipe_is_json_of_the_request(kandinsky, bundles, tmp_path):
    fields = text(guidance_scale=2.5)
    _, recipe = made_by(kandinsky, bundles("narrow"), fields, tmp_path / "out")
    kept = json.loads(recipe.request.to_json())
    assert {name: kept[name] for name in ("prompt", "seed", "guidance_scale", "num_inference_steps")} == {
        "prompt": ["a tiger"], "seed": 7, "guidance_scale": 2.5, "num_inference_steps": 4}


def test_packed_weights(kandinsky, pipeline, bundles, tmp_path):
    """Used where they were packed for such a machine and so many threads; refused where they are damaged."""
    copy = shutil.copytree(bundles("narrow"), tmp_path / "bundle")
    for _ in pack(Bundle(copy), pipeline.models.engine):
        pass
    fields = text()
    (expected,) = pipeline.make(Request.from_dict(fields))
    (found,), _ = made_by(kandinsky, copy, fields, tmp_path / "out")
    np.testing.assert_array_equal(found, np.asarray(expected.image))
    plan = kandinsky("generate", copy, "a tiger", "--plan").stdout
    assert "of the system's cache of files" in plan, plan
    other = kandinsky("generate", copy, "a tiger", "--plan", "--threads", len(os.sched_getaffinity(0)) + 1)
    assert other.returncode == 0 and "threads, not" in other.stderr and other.stderr.count("\n") == 1, other.stderr
    path = min((copy / "packed").rglob("*.bin"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = kandinsky("verify", copy)
    assert result.returncode == 2 and str(path) in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_one_model_at_a_time(kandinsky, pipeline, bundles, tmp_path):
    """In a budget that does not hold all of them."""
    fields = text(num_images_per_prompt=2, guidance_interval=[0.0, 0.5])
    expected = [np.asarray(picture.image) for picture in pipeline.make(Request.from_dict(fields))]
    command = [bundles("narrow"), "a tiger", *arguments(fields), "--memory", "260MB"]
    assert "peak, one at a time" in kandinsky("generate", *command, "--plan").stdout
    result = kandinsky("generate", *command, "-o", tmp_path / "p.png")
    assert result.returncode == 0, result.stderr
    for path, picture in zip(result.stdout.splitlines(), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_a_grid(kandinsky, pipeline, bundles, tmp_path):
    fields = text(num_images_per_prompt=4)
    expected = make_image_grid([picture.image for picture in pipeline.make(Request.from_dict(fields))], 2, 2)
    result = kandinsky("generate", bundles("narrow"), "a tiger", *arguments(fields), "--grid", "-o", tmp_path / "grid.png")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), np.asarray(expected))
    assert Provenance.read(tmp_path / "grid.png").grid
