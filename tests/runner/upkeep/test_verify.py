"""Sealed examples: whatever is planted in a graph or its weights is found, by name, and the layer with it."""

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace

import checkpoints
import numpy as np
import pytest
from kandinsky_mindir.export import bundle as bundle_module
from kandinsky_mindir.export.bisect import bisect
from kandinsky_mindir.runner.bundle.checked_files import sha256_of
from kandinsky_mindir.runner.bundle.manifest import sealed
from kandinsky_mindir.runner.bundle.mindir_archive import archive_of, pack
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.sealed_examples import Sample, SealedExample, file_name, positions
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import ALLOWED, read_example, require_right, verify
from plants import LAYER, PLANTS, TEXT, Plant, dropped_bias, unpack


@pytest.fixture
def planted(bundles, tmp_path):
    """A function: a copy of the narrow bundle with one graph, which may be changed; the manifest follows."""

    @contextmanager
    def copy(graph_name):
        folder = tmp_path / "bundle"
        shutil.copytree(bundles("narrow"), folder, copy_function=os.link)
        manifest = json.loads((folder / "manifest.json").read_text())
        graph = next(graph for graph in manifest["graphs"] if graph["name"] == graph_name)
        manifest["graphs"] = [graph | {"ms": []}]  # what Lite runs is the lowered MindIR, where the plants are
        unpack(folder / graph["part"])
        yield Plant(folder, graph)
        pack(folder / graph["part"])
        for name in (archive_of(graph["lite"]), f"{graph['part']}/weights.bin"):
            path = folder / name
            manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(sealed(manifest))

    return copy


@pytest.mark.parametrize("graph, plant, layer", PLANTS, ids=[plant.__name__ for _, plant, _ in PLANTS])
def test_a_plant_is_found_and_located(graph, plant, layer, planted, engine):
    with planted(graph) as target:
        plant(target)
        target.save()
    bundle = Bundle(target.folder)
    (verdict,) = verify(Models(bundle, engine, keep_loaded=False))
    print(f"{plant.__name__}: {verdict}")
    assert not verdict.right
    advice = "" if verdict.failure else "; kandinsky-mindir verify --bisect names the layer"
    with pytest.raises(UserError, match=f"^{graph} batch 1") as caught:
        require_right([verdict])
    assert str(caught.value) == f"{verdict}{advice}"
    for other, advice in ((verdict, ""), (verdict._replace(failure="its file is cut"), "look")):  # it says all there is to do
        with pytest.raises(UserError) as caught:
            require_right([other], advice)
        assert str(caught.value) == str(other)
    assert f"first wrong in {layer} " in bisect(bundle, verdict.graph, engine)


def test_a_good_bundle_passes(bundles, capsys):
    assert main(["verify", str(bundles("narrow"))]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == len(Bundle(bundles("narrow")).manifest.graphs)
    assert all(row.endswith(" right") for row in rows)


def test_the_command_names_the_graph_and_the_layer(planted, capsys):
    with planted(TEXT) as target:
        dropped_bias(target)
        target.save()
    assert main(["verify", str(target.folder), "--bisect"]) == 2
    output = capsys.readouterr()
    assert "WRONG" in output.out and f"first wrong in {LAYER}.mlp.fc1" in output.out
    assert output.err.startswith("kandinsky-mindir: error: text_encoder batch 1 is wrong")
    assert output.err.count("\n") == 1
    assert main(["verify", str(target.folder), "--tolerance", "0.5"]) == 0


def test_export_refuses_a_bundle_that_computes_wrong_values(bundles, planted, tmp_path, monkeypatch, capsys):
    """Everything of an export but compiling: the graphs are those of the shared bundle, one with a plant in it."""
    graphs = [replace(graph, ms=()) for graph in Bundle(bundles("narrow")).manifest.graphs]

    def made_before(folder, *_):
        for part in {graph.part for graph in graphs}:
            shutil.copytree(target.folder / part, folder / part, ignore=shutil.ignore_patterns("*.golden.npz"))
        return graphs

    monkeypatch.setattr(bundle_module, "write_parts", made_before)
    with planted(TEXT) as target:
        dropped_bias(target)
        target.save()
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(UserError, match="^text_encoder batch 1 is wrong: .*; .*/bundle.failed keeps the bundle: kandinsky-mindir"):
        bundle_module.export_bundle(*checkpoints.save("narrow", tmp_path), work / "bundle", checkpoints.SIZES["narrow"],
                                    progress=False)
    assert [path.name for path in work.iterdir()] == ["bundle.failed"]
    assert main(["verify", str(work / "bundle.failed"), "--part", "text_encoder", "--bisect"]) == 2
    assert f"first wrong in {LAYER}.mlp.fc1" in capsys.readouterr().out


@pytest.mark.parametrize("change, message", [
    (lambda path: path.write_bytes(path.read_bytes()[:-99]), "does not match|bytes, the manifest says"),
    (lambda path: path.unlink(), "missing"),
])
def test_a_damaged_example_is_named(change, message, bundles, tmp_path, engine):
    folder = tmp_path / "bundle"
    shutil.copytree(bundles("narrow"), folder)
    bundle = Bundle(folder)
    name = file_name(bundle.manifest.graphs[0])
    change(folder / name)
    with pytest.raises(UserError, match=message) as caught:
        list(verify(Models(bundle, engine, keep_loaded=False)))
    assert name in str(caught.value)


def test_what_cannot_be_verified_is_said(bundles, engine):
    models = Models(Bundle(bundles("narrow")), engine, keep_loaded=False)
    with pytest.raises(UserError, match="no part 'vae': it has text_encoder, "):
        list(verify(models, "vae"))
    manifest = models.bundle.manifest
    manifest.files.pop(file_name(manifest.graphs[0]))
    with pytest.raises(UserError, match="no sealed example of text_encoder batch 1"):
        read_example(models.bundle, manifest.graphs[0])


def test_a_sample_measures_relative_error():
    exact = np.random.default_rng(0).standard_normal((3, 5000))
    sample = Sample.of(exact, exact.astype(np.float32), 4096)
    assert sample.relative_error(exact * 1.01) == pytest.approx(0.01, rel=0.05)  # 4096 of 15000 squares: within 5 %
    assert 0 < sample.rounding < 2.0**-24
    assert sample.relative_error(np.where(exact == exact[0, 0], np.nan, exact)) == np.inf
    # Each place counts: no stretch of twice the mean distance goes without a sample.
    assert np.diff(np.sort(np.append(positions(exact.size, 4096), [0, exact.size]))).max() <= 2 * exact.size / 4096


def test_what_is_allowed_in_a_precision():
    """A chain of products in float16, sums too, is right; one that is off by a fifth is not, nor is float16 in float32's place."""
    random = np.random.default_rng(0)
    x, weights = random.standard_normal((64, 64)), random.standard_normal((4, 64, 64)) / 8

    def chain(dtype):
        y = x.astype(dtype)
        for weight in weights.astype(dtype):
            y = np.add.accumulate(y[:, :, None] * weight, axis=1, dtype=dtype)[:, -1]  # one term after the other
        return y

    exact = chain(np.float64)
    sample = Sample.of(exact, chain(np.float32), 4096)
    half = sample.relative_error(chain(np.float16))
    assert ALLOWED["float32"](sample.bound) < half < ALLOWED["float16"](sample.bound) < sample.relative_error(exact * 1.2)
    assert ALLOWED["bfloat16"](sample.bound) == max(sample.bound, ALLOWED["bfloat16"](0.0)) > sample.bound


def test_examples_come_back_as_written(tmp_path):
    sample = Sample(np.arange(3, dtype=np.float32), 1.5, 0.25)
    example = SealedExample({"x": np.ones((1, 2), np.float32)}, [sample], {"graph:7": sample}, {"conv_in": 7.0, "conv_out": 65536.0})
    example.write(tmp_path / "x.npz")
    again = SealedExample.read(tmp_path / "x.npz")
    np.testing.assert_equal(again, example)
    assert again.beyond_float16 == ["conv_out"]
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="x.npz cannot be read"):
        SealedExample.read(tmp_path / "x.npz")


def test_generate_verifies_first(planted, tmp_path, capsys):
    with planted(TEXT) as target:
        dropped_bias(target)
        target.save()
    picture = tmp_path / "picture.png"
    assert main(["generate", str(target.folder), "a cat", "--verify", "--output", str(picture)]) == 2
    assert "text_encoder batch 1 is wrong" in capsys.readouterr().err
    assert not picture.exists()
