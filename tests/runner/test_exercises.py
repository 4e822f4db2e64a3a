"""What a contributor adds is a change in one place: the exercises of runner/README.md, done."""

import numpy as np
import pytest
from kandinsky_mindir.runner import DDIMScheduler, Item, KandinskyV22CombinedPipeline, Request, cli, schedulers, tasks
from kandinsky_mindir.runner.pictures.provenance import Provenance

SMALL = {"height": 16, "width": 16, "prior_num_inference_steps": 2, "num_inference_steps": 3, "seed": 4}


@pytest.fixture(scope="module")
def pipeline(bundles):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("narrow"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class StillScheduler(DDIMScheduler):
    """A sampler that somebody adds: DDIM, under another name."""


def test_a_sampler(bundles, monkeypatch, tmp_path, capsys):
    """A class and its row: the command line takes its name, and the picture's metadata makes the picture again."""
    monkeypatch.setitem(schedulers.SHORT_NAMES, "still", (StillScheduler, {}))
    monkeypatch.setitem(schedulers.SCHEDULERS, "StillScheduler", StillScheduler)
    options = ["a cat", "--steps", "3", "--prior-steps", "2", "--seed", "4", "--size", "16x16", "--quiet"]
    picture, again, other = tmp_path / "cat.png", tmp_path / "again.png", tmp_path / "ddim.png"
    bundle = str(bundles("narrow"))
    assert cli.main(["generate", bundle, *options, "--scheduler", "still", "--output", str(picture)]) == 0, capsys.readouterr()
    assert Provenance.read(picture).request.scheduler["_class_name"] == "StillScheduler"
    assert cli.main(["generate", bundle, "--like", str(picture), "--output", str(again), "--quiet"]) == 0, capsys.readouterr()
    assert cli.main(["generate", bundle, *options, "--scheduler", "ddim", "--output", str(other)]) == 0, capsys.readouterr()
    assert pixels(picture) == pixels(again) == pixels(other)


def embed_mean(prior, request, items, sampling, source, latents):
    """A task that somebody adds: the mean of the items, whatever their weights."""
    embeddings = prior.embed_items(sampling, prior.as_items(items), "", None, source, latents)
    return prior.mix(embeddings, [1 / len(items)] * len(items))


def test_a_task(pipeline, monkeypatch):
    """A function and its row: a request of it is checked, read back from JSON, and made."""
    monkeypatch.setitem(tasks.TASKS, "mean", tasks.Task("items", (), f"{__name__}:embed_mean"))
    items = (Item(9.0, text="a cat"), Item(1.0, text="a dog"))
    mean = Request.from_json(Request(task="mean", items=items, **SMALL).to_json())
    (made,) = pipeline.make(mean)
    halves = tuple(Item(0.5, text=item.text) for item in items)
    (expected,) = pipeline.make(Request(task="interpolate", items=halves, **SMALL))
    assert np.array_equal(made.image, expected.image)
    assert made.request.task == "mean"
    with pytest.raises(ValueError, match="the task mean takes no negative_prompt"):
        Request(task="mean", items=items, negative_prompt="red")


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.tobytes()
