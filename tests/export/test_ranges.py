"""The largest value of each layer is recorded at export, and what float16 has no room for is said by name."""

import os
import shutil

import numpy as np
from damage import edit_json
from kandinsky_mindir.export.contents.seal_examples import example
from kandinsky_mindir.export.graphs.interpreter import evaluate
from kandinsky_mindir.export.graphs.reader import read_model
from kandinsky_mindir.runner.bundle.checked_files import sha256_of
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.sealed_examples import LARGEST_FLOAT16, SealedExample, file_name
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.upkeep.replay import read_example

LAYER = "text_model.encoder.layers.0.mlp.fc1"


def test_a_layer_beyond_float16_is_named(bundles, tmp_path, capsys):
    bundle = Bundle(bundles("narrow"))
    graph = bundle.manifest.find("text_encoder")
    model, inputs = read_model(bundle.mindir(graph.mindir), graph.mindir), read_example(bundle, graph).inputs
    before = example(model, bundle.path / graph.part, inputs)[0].largest
    values = [value for _, value in evaluate(model, bundle.path / graph.part, inputs)]
    numbers = [np.abs(value).max() for value in values if isinstance(value, np.ndarray) and value.dtype == np.float64]
    assert max(before.values()) <= max(numbers) and 0 < before[LAYER] < LARGEST_FLOAT16

    folder = tmp_path / "bundle"
    shutil.copytree(bundle.path, folder, copy_function=os.link)
    place = bundle.tensors(graph.part)[f"{LAYER}.weight"]
    data = bytearray((folder / graph.part / place.file).read_bytes())
    weight = np.frombuffer(data, "<f4", place.length // 4, place.offset)
    weight *= 1e6
    (folder / graph.part / place.file).unlink()
    (folder / graph.part / place.file).write_bytes(data)
    made = example(model, folder / graph.part, inputs)[0]
    assert made.largest[LAYER] > LARGEST_FLOAT16 and LAYER in made.beyond_float16
    assert set(made.beyond_float16) <= {name for name, value in made.largest.items() if value > before[name]}

    name = file_name(graph)
    (folder / name).unlink()
    made.write(folder / name)
    assert SealedExample.read(folder / name).beyond_float16 == made.beyond_float16
    changed = (name, f"{graph.part}/{place.file}")
    sizes = {each: {"size": (folder / each).stat().st_size, "sha256": sha256_of(folder / each)} for each in changed}
    text = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(text)
    edit_json(folder / "manifest.json", lambda manifest: manifest["files"].update(sizes))
    assert main(["inspect", str(folder)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("range     text_encoder")]
    assert "beyond float16: " in line and LAYER in line
