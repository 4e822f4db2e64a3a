"""A request: what it takes, what it refuses and how it names the field, and that JSON gives it back."""

import json

import numpy as np
import pytest
from kandinsky_mindir.runner import UserError, schedulers
from kandinsky_mindir.runner.diffusion.noise import OneOfBatch, from_seed
from kandinsky_mindir.runner.request import Item, Request

CAT = {"task": "text2image", "prompt": "a cat"}
MIX = {"task": "interpolate", "items": [{"text": "a cat", "weight": 0.3}, {"image": "dog.png", "weight": 1}]}
SHA256 = "0f" * 32


def test_json_gives_it_back():
    full = Request(
        task="text2image", prompt=["a cat", "a dög"], negative_prompt=["", "blue"], num_images_per_prompt=2,
        scheduler=schedulers.SHORT_NAMES["dpmpp-2m-karras"][0](use_karras_sigmas=True), prior_scheduler="ddpm",
        num_inference_steps=7, prior_num_inference_steps=5, guidance_scale=3, prior_guidance_scale=1.5,
        guidance_rescale=0.7, guidance_interval=(0.2, 0.8), cache_interval=3, height=512, width=768, seed=2**100, rng="numpy",
    )  # fmt: skip
    assert Request.from_json(full.to_json()) == full == Request.from_dict(json.loads(json.dumps(full.to_dict())))
    mix = Request.from_dict(MIX)
    assert Request.from_json(mix.to_json()) == mix and mix.items[1] == Item(1.0, image="dog.png")


def test_it_does_not_change():
    with pytest.raises(AttributeError):
        Request(**CAT).seed = 3


def test_numpy_scalars_become_numbers():
    """float16 and uint8 would overflow where they are compared or multiplied."""
    found = Request(**CAT, num_inference_steps=np.uint8(200), num_images_per_prompt=np.int64(3), guidance_scale=np.float16(4),
                    guidance_rescale=np.float64(0.5), guidance_interval=np.float32([0, 0.5]), height=np.int16(512),
                    width=np.uint8(255), seed=np.uint64(2**63))  # fmt: skip
    values = [getattr(found, name) for name in found.__struct_fields__]
    assert not any(isinstance(value, (np.generic, np.ndarray)) for value in (*values, *found.guidance_interval))
    assert (found.num_inference_steps, found.guidance_scale, found.width, found.seed) == (200, 4.0, 255, 2**63)


def test_an_infinite_default_does_not_reach_json():
    """`lambda_min_clipped` of DPM-Solver is -Infinity, which is no JSON: left out, it is the same sampler."""
    sampler = schedulers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    text = Request(**CAT, scheduler=sampler).to_json()
    assert "Infinity" not in text and "lambda_min_clipped" not in text
    assert schedulers.create(Request.from_json(text).scheduler).config == sampler.config
    with pytest.raises(UserError, match="tau_func is a function, which JSON cannot hold"):
        Request(**CAT, scheduler=schedulers.SASolverScheduler(tau_func=abs))


def test_complete_fills_what_was_left_open():
    defaults = {"num_inference_steps": 25, "guidance_scale": 4.0, "height": 512}
    found = Request(**CAT, guidance_scale=1).complete(defaults)
    assert (found.num_inference_steps, found.guidance_scale, found.height, found.width) == (25, 1.0, 512, None)
    assert 0 <= found.seed < 2**32 and found.complete(defaults) == found


def test_a_picture_alone():
    batch = Request(task="text2image", prompt=["a", "b"], negative_prompt=["c", "d"], num_images_per_prompt=3, seed=1)
    alone = batch.alone(4)
    assert (alone.prompt, alone.negative_prompt, alone.count, alone.row, alone.rows) == (("b",), ("d",), 1, 4, 6)
    assert alone.alone(0) == alone and Request(**CAT).alone(0) == Request(**CAT)
    expected = OneOfBatch(from_seed(1), 4, 6).standard_normal((2, 3))
    assert np.array_equal(alone.noise_source().standard_normal((2, 3)), expected)
    mix = Request.from_dict(MIX | {"num_images_per_prompt": 2}).alone(1)
    assert (len(mix.items), mix.row, mix.rows, mix.count) == (2, 1, 2, 1)


def test_other_values_keep_the_picture_while_it_is_one():
    alone = Request(**CAT, num_images_per_prompt=3, seed=1).alone(2)
    assert alone.replace(num_inference_steps=5).row == 2
    again = alone.replace(num_images_per_prompt=2)
    assert (again.row, again.rows, again.count) == (None, 1, 2)
    with pytest.raises(UserError, match="a request has no steps; it has "):
        alone.replace(steps=3)


REFUSED = [
    ({"task": "paint"}, "task is 'paint': choose one of text2image, interpolate"),
    ({"prompt": []}, "prompt is an empty list"),
    ({"prompt": "cat\ud800"}, "prompt must be Unicode text"),
    ({"prompt": ["a", 7]}, "prompt"),
    ({"negative_prompt": ["a", "b"]}, "negative_prompt has 2 texts and prompt has 1"),
    ({"items": [{"text": "a", "weight": 1}]}, "the task text2image takes no items"),
    ({"negative_prior_prompt": "a"}, "the task text2image takes no negative_prior_prompt"),
    ({"surprise": 1}, "surprise"),
    *[({name: value}, name) for name in ("num_inference_steps", "prior_num_inference_steps", "num_images_per_prompt",
                                         "height", "width", "cache_interval") for value in (0, -1, 2.5, "3", True)],
    *[({name: 10**400}, name) for name in ("num_images_per_prompt", "height", "width", "guidance_scale")],
    *[({name: value}, name) for name in ("guidance_scale", "prior_guidance_scale", "guidance_rescale")
      for value in (-0.1, "4", True, 1e39, float("nan"), float("inf"))],
    ({"guidance_rescale": 1.1}, "guidance_rescale is 1.1: it must be from 0 (off) to 1"),
    *[({"guidance_interval": value}, "guidance_interval") for value in ((0.5, 0.5), (0, 2), (0.1,), 0.5, "01")],
    ({"seed": -1}, "seed -1 does not suit the generator 'numpy'"),
    ({"seed": True}, "seed"),
    ({"seed": 2**40, "rng": "numpy-legacy"}, "does not suit the generator 'numpy-legacy'"),
    ({"rng": "jax"}, "rng is 'jax': choose one of numpy, numpy-legacy, torch"),
    ({"scheduler": "magic"}, "scheduler 'magic' is not known"),
    ({"scheduler": {"_class_name": "DDIMScheduler", "beta_end": "x"}}, "beta_end"),
    ({"prior_scheduler": 7}, "prior_scheduler"),
    ({"row": 0, "rows": 0}, "rows is 0"),
    ({"row": 2, "rows": 2}, "row is 2 of 2 rows"),
    ({"row": 0, "rows": 2, "num_images_per_prompt": 2}, "row is 0, which is one picture, and the request is for 2"),
    ({"rows": 2}, "rows is 2 without a row"),
]  # fmt: skip
REFUSED_MIXES = [
    ({"items": []}, "items is empty"),
    ({"items": [{"text": "a", "weight": 0}]}, "weights are all zero"),
    ({"items": [{"text": "a", "weight": 1e39}]}, "weight is 1e+39: it must be a finite number"),
    ({"items": [{"weight": 1}]}, "either a text or an image"),
    ({"items": [{"text": "a", "image": "b", "weight": 1}]}, "either a text or an image"),
    ({"items": [{"text": "a", "sha256": SHA256, "weight": 1}]}, "either a text or an image"),
    ({"items": [{"image": "a", "sha256": "0", "weight": 1}]}, "sha256 is '0': it must be 64 hexadecimal digits"),
    ({"items": ["a cat"]}, "items"),
    ({"prompt": "a"}, "the task interpolate takes no prompt"),
    ({"negative_prompt": ["a", "b"]}, "it must be one text, for the whole mix"),
]


@pytest.mark.parametrize("base, change, words", [*((CAT, *row) for row in REFUSED), *((MIX, *row) for row in REFUSED_MIXES)])
def test_what_is_refused(base, change, words):
    """As Python's values and as JSON, where JSON can hold them."""
    with pytest.raises(UserError) as error:
        Request.from_dict(base | change, "the request")
    assert str(error.value).startswith("the request: ") and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [change for change, _ in REFUSED if "surprise" not in change])
def test_what_is_refused_of_python(change):
    """The constructor takes any type, unlike JSON's decoder: the same values are refused there."""
    with pytest.raises(UserError) as error:
        Request(**CAT | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text, words", [
    ("", "truncated"), ("{", "truncated"), ("[]", "expected `object`, got `array`"), ("{}", "field `task`"), ("7", "`int`"),
    ('{"task": "text2image", "prompt": "a", "guidance_scale": -Infinity}', "JSON is malformed"),
    ('{"task": "text2image", "prompt": "a", "guidance_scale": NaN}', "JSON is malformed"),
    ('{"task": "text2image", "prompt": "a", "guidance_scale": 1e999}', "guidance_scale: number out of range"),
    ('{"task": "text2image", "prompt": "a", "width": "512"}', "width: expected `int | null`, got `str`"),
    (b'{"task": "\xff"}', "not UTF-8"),
    ('{"scheduler": ' + "[" * 100_000, "scheduler"),
])  # fmt: skip
def test_what_is_no_request(text, words):
    with pytest.raises(UserError) as error:
        Request.from_json(text, "cat.png")
    message = str(error.value)
    assert message.startswith("cat.png: ") and words.lower() in message.lower() and "\n" not in message
