"""Pictures as they are made: one after another, each with the request that makes it again; each model loaded once."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import Item, KandinskyV22CombinedPipeline, Request, TorchGenerator, UserError
from PIL import Image

STEPS = {"prior_num_inference_steps": 2, "num_inference_steps": 3}
SMALL = {"height": 16, "width": 16, **STEPS}


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def leases(pipeline, monkeypatch):
    """How often each graph was leased, and the longest row of calls with the same graph."""
    lease, names = pipeline.models.lease, []

    @contextmanager
    def recorded(name, *arguments):
        names.append(name)
        with lease(name, *arguments) as run:
            yield run

    monkeypatch.setattr(pipeline.models, "lease", recorded)
    return names


def picture(color="red"):
    image = Image.new("RGB", (24, 24), color)
    image.paste("white", (4, 4, 12, 20))
    return image


REQUESTS = [
    Request(task="text2image", prompt=["a cat", "a dog"], negative_prompt=["red", "blue"], num_images_per_prompt=2, seed=5, **SMALL),
    Request(task="text2image", prompt="a cat", num_images_per_prompt=3, seed=5, rng="torch", scheduler="ddpm", **SMALL),
    Request(task="text2image", prompt="a cat", prior_guidance_scale=1, guidance_scale=1, seed=5, rng="numpy-legacy", **SMALL),
    Request(task="interpolate", items=[Item(0.4, text="a cat"), Item(0.6, text="a dog")], num_images_per_prompt=2, seed=1,
            negative_prior_prompt="blue", negative_prompt="red", scheduler="euler-a", **SMALL),
]  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request.task}-{request.rng}-{request.scheduler}")
def test_a_picture_s_request_makes_it_again_alone(request_, pipeline):
    made = list(pipeline.make(request_))
    assert [picture.row for picture in made] == list(range(request_.count))
    assert len({picture.image.tobytes() for picture in made}) == request_.count
    for picture in made:
        again = Request.from_json(picture.request.to_json())
        assert again.count == 1 and again.scheduler["_class_name"]
        (alone,) = pipeline.make(again)
        assert alone.image.tobytes() == picture.image.tobytes() and alone.request == again


def test_keywords_and_requests_are_the_same(pipeline):
    expected = pipeline(["a cat", "a dog"], num_images_per_prompt=2, generator=5, guidance_rescale=0.3, **SMALL).images
    request = Request(task="text2image", prompt=["a cat", "a dog"], num_images_per_prompt=2, guidance_rescale=0.3, seed=5, **SMALL)
    found = [made.image.tobytes() for made in pipeline.make(request)]
    assert found == [image.tobytes() for image in expected]
    torch = pipeline("a cat", generator=TorchGenerator(5), **SMALL).images[0]
    (made,) = pipeline.make(Request(task="text2image", prompt="a cat", seed=5, rng="torch", **SMALL))
    assert made.image.tobytes() == torch.tobytes()
    (by_object,) = pipeline.make(Request(task="text2image", prompt="a cat", **SMALL), generator=TorchGenerator(5))
    assert by_object.image.tobytes() == torch.tobytes() and by_object.request is None
    (by_int,) = pipeline.make(Request(task="text2image", prompt="a cat", **SMALL), generator=np.int64(7))
    assert (by_int.request.seed, by_int.request.rng) == (7, "numpy")


def test_a_mix_of_pictures(pipeline, tmp_path):
    path = tmp_path / "picture.png"
    picture().save(path)
    request = Request(task="interpolate", items=[Item(0.5, text="a cat"), Item(0.5, image=str(path))], seed=3, **SMALL)
    (made,) = pipeline.make(request)
    embeds = pipeline.prior_pipe.interpolate(["a cat", picture()], [0.5, 0.5], num_inference_steps=2,
                                             generator=(source := request.noise_source()))  # fmt: skip
    expected = pipeline.decoder_pipe(*embeds, generator=source, height=16, width=16, num_inference_steps=3).images[0]
    assert made.image.tobytes() == expected.tobytes()
    assert made.request.items[1].sha256 and made.request.items[1].image == str(path)
    (in_memory,) = pipeline.make(request, pictures=[picture()])
    assert in_memory.image.tobytes() == expected.tobytes()
    picture("blue").save(path)
    with pytest.raises(UserError, match="is not the picture that was used"):
        pipeline.make(made.request)
    with pytest.raises(UserError, match="pictures has 2 pictures and the request mixes 1"):
        pipeline.make(request, pictures=[picture(), picture()])
    with pytest.raises(UserError, match="without a path"):
        pipeline.make(request.replace(items=(Item(1.0, sha256=made.request.items[1].sha256),)))


def test_what_is_refused_is_refused_before_the_first_picture(pipeline, leases):
    for change in ({"height": 24}, {"num_inference_steps": 1001}, {"prior_num_inference_steps": 1001}):
        with pytest.raises(UserError):
            pipeline.make(Request(task="text2image", prompt="a cat").replace(**change))
    with pytest.raises(UserError, match="output_type is 'pt'"):
        pipeline.make(Request(task="text2image", prompt="a cat", **SMALL), output_type="pt")
    assert not leases


def test_pictures_come_one_by_one(pipeline, leases):
    """The first is there before the second is denoised, and one that is never asked for is never made."""
    made = pipeline.make(Request(task="text2image", prompt="a cat", num_images_per_prompt=3, seed=5, **SMALL))
    next(made)
    assert Counter(leases)["movq_decoder"] == Counter(leases)["unet_context"] == 1
    made.close()
    assert Counter(leases)["movq_decoder"] == 1
    assert len(pipeline("a cat", generator=5, **SMALL).images) == 1, "what was left half done holds nothing"


def test_a_mix_of_three_texts_loads_each_model_once(bundles, monkeypatch):
    """Counted at the engine, where models are freed after use: texts, contexts, then the prior, item by item."""
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"), keep_loaded=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unload()  # what other pipelines on the same bundle have left
    engine, loaded = pipeline.models.engine, Counter()
    load = type(engine).load

    def counted(self, path, **options):
        loaded["models"] += 1
        return load(self, path, **options)

    monkeypatch.setattr(type(engine), "load", counted)
    embeds = pipeline.prior_pipe.interpolate(["a cat", "a dog", "a fox", "a cat"], [0.2, 0.3, 0.4, 0.1], num_inference_steps=2,
                                             negative_prompt="red", negative_prior_prompt="blue", generator=0)  # fmt: skip
    manifest = pipeline.bundle.manifest
    pieces = {name: len(manifest.find(name, batch).ms) or 1 for name, batch in
              (("text_encoder", 1), ("prior_context", 1), ("prior", 2))}  # fmt: skip
    assert loaded["models"] == sum(pieces.values())
    loaded.clear()
    mixes = pipeline.prior_pipe.embed(["a cat", picture(), picture()], num_inference_steps=2, generator=0)
    assert loaded["models"] == sum(pieces.values()) + 1, "equal pictures are embedded once"
    loaded.clear()
    films = [pipeline.prior_pipe.mix(mixes, [1 - weight, weight / 2, weight / 2]) for weight in (0.0, 0.5, 1.0)]
    assert not loaded and embeds[0].shape == films[0][0].shape == (1, 32)


def test_a_mix_is_its_parts(pipeline):
    items, weights, options = ["a cat", picture(), "a cat"], [0.5, 0.3, -0.2], {"num_images_per_prompt": 2, "num_inference_steps": 2}
    expected = pipeline.prior_pipe.interpolate(items, weights, generator=1, **options)
    embeddings = pipeline.prior_pipe.embed(items, generator=1, **options)
    assert embeddings.item_embeds.shape == (3, 2, 32)
    assert not np.array_equal(embeddings.item_embeds[0], embeddings.item_embeds[2]), "noise goes on from item to item"
    found = pipeline.prior_pipe.mix(embeddings, weights)
    assert all(map(np.array_equal, found, expected))
    with pytest.raises(UserError, match="has 3 items and weights has 2"):
        pipeline.prior_pipe.mix(embeddings, [1, 2])


@pytest.mark.parametrize("scheduler", ("checkpoint", "dpmpp-2m", "sa"))
@pytest.mark.parametrize("keep_loaded", (True, False))
def test_rows_made_in_groups_are_those_made_at_once(scheduler, keep_loaded, bundles, tape):
    """A callback makes all rows go together. Otherwise few do, with the noise that they have there."""
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"), keep_loaded=keep_loaded, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    for source in (lambda: 3, lambda: TorchGenerator(3), lambda: tape(3), lambda: [*range(10), *map(TorchGenerator, range(9))]):
        options = {"num_images_per_prompt": 19, "output_type": "latent", **SMALL}
        groups = pipeline("a cat", generator=source(), **options).images
        at_once = pipeline("a cat", generator=source(), callback_on_step_end=lambda *_: {}, **options).images
        assert np.array_equal(groups, at_once)


def test_the_noise_that_a_call_takes_is_that_of_one_batch(pipeline, tape):
    """A generator is left as the reference leaves it: one tensor for all rows in every step, whatever goes together."""
    shapes = tape()
    pipeline.scheduler = "checkpoint"
    pipeline("a cat", num_images_per_prompt=3, generator=shapes, **SMALL)
    pipeline.scheduler = pipeline.decoder_pipe.default_scheduler
    assert shapes.shapes == [(3, 32)] * 2 + [(3, 4, 8, 8)] * 3


THOUSAND = """
import sys
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, UserError
from kandinsky_mindir.runner.common.memory import PeakMemory
pipeline = KandinskyV22CombinedPipeline.from_pretrained(sys.argv[1], memory=sys.argv[2] if sys.argv[2:] else None)
pipeline.set_progress_bar_config(disable=True)
options = {"prior_num_inference_steps": 1, "num_inference_steps": 1, "generator": 0}
with PeakMemory() as memory:
    images = pipeline("a cat", num_images_per_prompt=1000, **options).images
print(len(images), memory.peak)
try:
    pipeline("a cat", num_images_per_prompt=10_000, output_type="np", **options)
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(bundles):
    """A thousand in one call, within a budget that keeps one model at a time; more than fit are refused before the work."""
    result = subprocess.run([sys.executable, "-c", THOUSAND, bundles("micro"), "400MB"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    made, refusal = result.stdout.splitlines()
    count, peak = map(int, made.split())
    assert count == 1000 and peak <= 400e6
    assert "pictures" in refusal


@pytest.fixture
def control_group():
    """A function that makes a control group of so many bytes; gives the file that takes the numbers of its processes."""
    made = []

    def make(limit):
        for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            group = Path(root) / f"kandinsky-mindir-test-{os.getpid()}"
            try:
                group.mkdir()
                made.append(group)
                (group / name).write_text(str(limit))
                return group / "cgroup.procs"
            except OSError:
                continue
        pytest.skip("no control group can be made here: that takes root")

    yield make
    for group in made:
        group.rmdir()


@pytest.mark.slow
def test_a_thousand_pictures_in_a_control_group(bundles, control_group):
    """Nobody says how much memory there is: the group does. The system kills what goes beyond it."""
    command = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', control_group(400 * 10**6), sys.executable, "-c", THOUSAND, bundles("micro")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout.startswith("1000 "), result.stderr
