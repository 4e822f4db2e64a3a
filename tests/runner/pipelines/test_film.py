"""Films: frames on a way through keys; the prior runs once a text; what is made does not depend on what was made before."""

from collections import Counter
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from kandinsky_mindir.runner import Film, InputPicture, Item, KandinskyV22CombinedPipeline, UserError, film_frames
from kandinsky_mindir.runner.diffusion.ways import circle, eased, lerp, place, slerp
from PIL import Image

STEPS = {"num_inference_steps": 3, "prior_num_inference_steps": 2, "height": 16, "width": 16}


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def runs(pipeline, monkeypatch):
    """How often each graph ran."""
    lease, counted = pipeline.models.lease, Counter()

    @contextmanager
    def recorded(name, *arguments):
        with lease(name, *arguments) as run:
            def count(**inputs):
                counted[name] += 1
                return run(**inputs)

            yield count

    monkeypatch.setattr(pipeline.models, "lease", recorded)
    return counted


def pixels(frames):
    return [np.asarray(frame.image).astype(np.float64) for frame in frames]


def test_a_loop_of_24_frames_of_two_texts(pipeline, runs):
    """The prior runs twice. The last frame is as near to the first as neighbours are; keys are the texts' own pictures."""
    film = Film.of(["a cat", "a dog"], frames=24, loop=True, seed=7, **STEPS)
    found = pixels(film_frames(pipeline, film))
    assert runs["prior"] == 2 * STEPS["prior_num_inference_steps"] and runs["text_encoder"] == 2
    assert runs["movq_decoder"] == len(found) == 24
    changes = [np.abs(one - other).mean() for one, other in pairwise(found)]
    assert 0 < np.abs(found[-1] - found[0]).mean() <= max(changes)
    for number, text in ((0, "a cat"), (12, "a dog")):
        assert np.array_equal(found[number], np.asarray(pipeline(text, generator=7, **STEPS).images[0]))


@pytest.mark.parametrize("options", [
    {"noise": "circle", "loop": True, "scheduler": "ddpm", "rng": "torch"},
    {"noise": "slerp", "negative_prompt": "red", "scheduler": "euler-a", "embeds": "lerp", "easing": "cosine"},
    {"hold": 0.7, "guidance_scale": 1, "prior_guidance_scale": 1, "negative_prompt": "red"},
], ids=["circle", "slerp", "hold"])  # fmt: skip
def test_frames_are_the_same_whichever_are_asked_for(options, pipeline, runs, tmp_path, monkeypatch):
    """One by one, in groups, with what is asked for before left out: for samplers that draw noise, too."""
    picture = Image.linear_gradient("L").resize((24, 24)).convert("RGB")
    picture.save(tmp_path / "picture.png")
    keys = ["a cat", Item(1.0, image=str(tmp_path / "picture.png")), "a cat"]
    film = Film.of(keys, frames=7, seed=3, **STEPS, **options)
    whole = pixels(film_frames(pipeline, film))
    assert runs["prior"] == STEPS["prior_num_inference_steps"] * (2 if "negative_prompt" in options else 1)
    distinct = len({frame.tobytes() for frame in whole})
    assert (distinct, runs["movq_decoder"]) == ((2, 3) if "hold" in options else (7, 7)), "frames that stand are made once"
    some = dict(film_frames(pipeline, film, numbers=[2, 5, 6]))
    monkeypatch.setattr("kandinsky_mindir.runner.pipelines.decoder.KandinskyV22Pipeline.rows_at_once",
                        lambda self, decoding, rows, draws: min(rows, 3))  # fmt: skip
    groups = pixels(film_frames(pipeline, film))
    assert all(map(np.array_equal, whole, groups))
    assert list(some) == [2, 5, 6] and all(np.array_equal(np.asarray(some[number]), whole[number]) for number in some)
    assert list(film_frames(pipeline, film, numbers=[])) == []


def test_a_negative_prompt_is_that_of_a_single_picture(pipeline):
    film = Film.of(["a cat", "a dog"], frames=2, seed=7, negative_prompt="red", scheduler="ddpm", **STEPS)
    for frame, text in zip(film_frames(pipeline, film), ("a cat", "a dog")):
        pipeline.scheduler = "ddpm"
        alone = pipeline(text, negative_prompt="red", generator=7, **STEPS).images[0]
        pipeline.scheduler = pipeline.decoder_pipe.default_scheduler
        assert frame.image.tobytes() == alone.tobytes()


@pytest.mark.parametrize("fields, words", [
    ({"keys": ["a cat"]}, "one key gives a film whose frames are all the same"),
    ({"keys": []}, "items is empty"),
    ({"frames": 1}, "1 frames do not show 2 keys"),
    ({"keys": ["a", "b", "c"], "frames": 2}, "2 frames do not show 3 keys"),
    ({"frames": 10**9}, "at most 100000"),
    ({"hold": 1}, "hold is 1: it must be a share"),
    ({"hold": float("nan")}, "hold is nan"),
    ({"embeds": "spline"}, "embeds is 'spline': choose one of slerp, lerp"),
    ({"noise": "none"}, "noise is 'none': choose one of still, slerp, circle"),
    ({"easing": "bounce"}, "easing is 'bounce'"),
    ({"num_images_per_prompt": 2}, "for one picture"),
    ({"image": [InputPicture(image="cat.png")]}, "a film's request brings no image: its keys are its items"),
    ({"negative_prior_prompt": "red"}, "takes no negative_prior_prompt"),
])  # fmt: skip
def test_films_that_cannot_be(fields, words):
    with pytest.raises(UserError, match=words):
        Film.of(**{"keys": ["a cat", "a dog"], **fields})


def test_what_is_refused_is_refused_before_the_first_frame(pipeline, runs):
    for change in ({"height": 24}, {"num_inference_steps": 1001}, {"prior_num_inference_steps": 1001}):
        with pytest.raises(UserError):
            film_frames(pipeline, Film.of(["a cat", "a dog"], **change))
    for numbers in ([48], [-1], [3, 2], [1, 1]):
        with pytest.raises(UserError, match="numbers must rise, from 0 to 47"):
            film_frames(pipeline, Film.of(["a cat", "a dog"], **STEPS), numbers=numbers)
    assert not runs


def test_places_of_frames():
    assert [place(number, 5, 3, False) for number in range(5)] == [(0, 0), (0, 0.5), (1, 0), (1, 0.5), (2, 0)]
    assert [place(number, 6, 3, True) for number in range(6)] == [(0, 0), (0, 0.5), (1, 0), (1, 0.5), (2, 0), (2, 0.5)]
    assert place(3, 4, 1, False) == (0, 0)
    for easing in ("linear", "smoothstep", "cosine"):
        for hold in (0, 0.5):
            shares = [eased(number / 16, easing, hold) for number in range(17)]
            assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1, abs=1e-15)
            assert shares[8] == pytest.approx(0.5, abs=1e-15) and shares.count(0) == (5 if hold else 1)


def test_ways_between_arrays():
    """Of normal noise, arcs keep the spread; the straight line loses a part of it, 1 - sqrt(1/2) in the middle.

    Spreads of 65,536 numbers are off by 0.003 (standard error 1 / sqrt(2 n)); 0.02 is seven times that.
    """
    one, other = np.random.default_rng(0).standard_normal((2, 1, 65536)).astype(np.float32)
    for share in (0.25, 0.5, 0.75):
        assert abs(slerp(one, other, share).std() - 1) < 0.02
        assert abs(circle(one, other, share).std() - 1) < 0.02
    assert abs(lerp(one, other, 0.5).std() - np.sqrt(0.5)) < 0.02
    middle, line = slerp(one, 3 * other, 0.5), np.linalg.norm(one) + 3 * np.linalg.norm(other)
    assert np.linalg.norm(middle) == pytest.approx(line / 2, rel=1e-6), "the length lies on the line between the lengths"
    for way in (lerp, slerp):
        assert way(one, other, 0) is one and way(one, other, 1) is other
        assert np.allclose(way(one, one, 0.3), one, rtol=1e-6)
    assert not slerp(np.zeros_like(one), np.zeros_like(one), 0.5).any()
    with pytest.raises(UserError, match="opposite directions"):
        slerp(one, -one, 0.5)
    quarter = [np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)]
    assert np.allclose(slerp(*quarter, 1 / 3), [[np.cos(np.pi / 6), np.sin(np.pi / 6)]], rtol=1e-6)
    steps = [np.linalg.norm(circle(one, other, i / 24) - circle(one, other, (i + 1) / 24)) for i in range(24)]
    assert max(steps) / min(steps) < 1.02
