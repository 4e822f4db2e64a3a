"""The command batch on a bundle: the pictures are generate's, whatever stops and starts it; bad rows are named."""

import json
import shutil

import batch_kills
import numpy as np
import pytest
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.pictures.provenance import Provenance
from PIL import Image

FEW = {"num_inference_steps": 2, "prior_num_inference_steps": 2}


@pytest.fixture
def place(bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundles("narrow"))
    return tmp_path


def write(*rows):
    with open("rows.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def batch(*options, output="out"):
    return cli.main(["batch", "bundle", "rows.jsonl", "--output", output, "--quiet", "--threads", "1", *options])


def pixels(path):
    return np.asarray(Image.open(path))


def test_pictures_are_those_of_generate_and_interpolate(place, capsys):
    """Of a row with several pictures too; and their recipes make them again."""
    assert cli.main(["generate", "bundle", "a cat", "a dog", "--seed", "5", "--steps", "2", "--prior-steps", "2", "--images", "2",
                     "--threads", "1", "--quiet", "--output", "one.png"]) == 0
    weights = ["--text", "a cat", "0.3", "--image", "one-1.png", "0.7"]
    assert cli.main(["interpolate", "bundle", *weights, "--seed", "6", "--steps", "2", "--prior-steps", "2", "--threads", "1",
                     "--quiet", "--output", "mix.png"]) == 0
    assert cli.main(["generate", "bundle", "a cat", "--init-image", "one-1.png", "--strength", "0.5", "--seed", "8", "--steps", "4",
                     "--prior-steps", "2", "--threads", "1", "--quiet", "--output", "changed.png"]) == 0
    write({"id": "changed", "prompt": "a cat", "image": "one-1.png", "strength": 0.5, "seed": 8, **FEW, "num_inference_steps": 4},
          {"id": "one", "prompt": ["a cat", "a dog"], "num_images_per_prompt": 2, "seed": 5, **FEW},
          {"id": "mix", "items": [{"text": "a cat", "weight": 0.3}, {"image": "one-1.png", "weight": 0.7}], "seed": 6, **FEW})
    capsys.readouterr()
    assert batch("--workers", "2") == 0
    names = ["changed.png", "mix.png", *(f"one-{number}.png" for number in range(1, 5))]
    assert sorted(capsys.readouterr().out.split()) == [f"out/{name}" for name in names]
    for name in names:
        assert np.array_equal(pixels(f"out/{name}"), pixels(name)), name
        assert Provenance.read(f"out/{name}").request == Provenance.read(name).request
    again = {path: path.stat().st_mtime_ns for path in (place / "out").iterdir()}
    assert batch() == 0
    assert capsys.readouterr().err.startswith("0 pictures made, 6 were there")
    assert again == {path: path.stat().st_mtime_ns for path in (place / "out").iterdir()}


@pytest.mark.parametrize("row, words", [
    ({"prompt": "a", "height": 24, "width": 24}, "rows.jsonl, line 2: this bundle has no size 24x24|line 2: .*no size 24x24"),
    ({"items": [{"image": "gone.png", "weight": 1}]}, "line 2: gone.png cannot be read"),
    ({"prompt": "a", "num_inference_steps": 2000}, "line 2: "),
    ({"prompt": "a", "prior_scheduler": "pndm", "num_inference_steps": "x"}, "line 2: num_inference_steps"),
])
def test_all_rows_are_judged_before_the_first_picture(row, words, place, capsys):
    write({"prompt": "a cat", **FEW}, row)
    assert batch() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "rows.jsonl, line 2: " in error and words.rpartition("*")[2].rpartition("line 2: ")[2] in error
    assert not (place / "out").exists()


@pytest.mark.parametrize("options, words", [
    (["--workers", "0"], "workers is 0"), (["--retries", "-1"], "--retries is -1"),
    (["--node-bundle", "x"], "--node-bundle is for --ray"), (["--output", "no/out"], "the folder no/out cannot be made"),
    (["--output", "rows.jsonl"], "cannot be"), (["--memory", "1MB"], "line 1: "),
])
def test_bad_options(options, words, place, capsys):
    write({"prompt": "a cat", **FEW})
    assert batch(*options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (place / "out").exists()


def test_more_workers_than_processors(place, capsys):
    write({"prompt": "a cat", **FEW})
    assert cli.main(["batch", "bundle", "rows.jsonl", "--output", "out", "--workers", "1000"]) == 2
    assert "--workers is 1000 and there are" in capsys.readouterr().err


def test_a_row_that_cannot_be_made_is_recorded_and_named(place, capsys, monkeypatch):
    """A model that does not load: its file is damaged after the rows were judged."""
    shutil.copytree(place / "bundle", place / "copy")
    (place / "bundle").unlink()
    (place / "copy").rename(place / "bundle")
    write({"id": "a", "prompt": "a cat", **FEW})
    weights = place / "bundle" / "unet" / "weights.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert batch("--retries", "1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 1 pictures could not be made, a.png for one: " in error and "sha256" in error
    (record,) = map(json.loads, open("out/results.jsonl"))
    assert record["tries"] == 2 and "sha256" in record["error"]


def test_killed_at_a_random_moment(bundles, tmp_path):
    """The command, once. Of 200 pictures, and of workers, the program batch_kills.py, and the slow test below."""
    count, _, commands, workers, runs, _ = batch_kills.disturb(
        batch_kills.Batch(tmp_path / "place", bundles("narrow"), 6, 2, 1), 1, np.random.default_rng(0))
    assert (count, commands, workers, runs) == (6, 1, 0, 2)


@pytest.mark.slow
def test_killed_ten_times(bundles, tmp_path):
    count, _, commands, workers, _, _ = batch_kills.disturb(
        batch_kills.Batch(tmp_path / "place", bundles("narrow"), 200, 2, 2), 10, np.random.default_rng(1))
    assert count == 200 and commands + workers == 10


@pytest.mark.slow
def test_a_node_of_a_ray_cluster_dies(bundles, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")
    count, nodes, back, _ = batch_kills.lose_a_node(tmp_path / "place", bundles("narrow"), 60, 100, 3)
    assert count == 60 and nodes >= 2 and back <= 1


def test_no_ray(place, capsys, monkeypatch):
    write({"prompt": "a cat", **FEW})
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert batch("--ray", "auto") == 2
    assert "--ray needs Ray: run pip install 'kandinsky-mindir[ray]'" in capsys.readouterr().err
