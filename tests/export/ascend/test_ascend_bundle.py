"""A bundle with graphs for Ascend beside those for the CPU, over the same weights."""

import json
import re
import zipfile

import checkpoints
import pytest
from kandinsky_mindir.export.bundle import export_bundle
from kandinsky_mindir.export.check import operators_in
from kandinsky_mindir.export.further_sizes import add_sizes
from kandinsky_mindir.runner import engine as engines
from kandinsky_mindir.runner.bundle.manifest import Manifest, sealed
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.loading.loader import loadable
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep.replay import verify

pytestmark = pytest.mark.slow

# float16 keeps 11 bits of a factor, of what a product gives, and of what lies between two: three roundings for each of the
# products that follow one another, at most 289 (runner/upkeep/replay.py), each by 2^-12 at most, that add as a random walk does.
FLOAT16 = (3 * 289) ** 0.5 * (2 / 3) ** 0.5 * 2.0**-12


@pytest.fixture(scope="module")
def folder(kept, engine):
    """The checkpoint's folders, and its bundle."""
    def make(folder):
        prior, decoder = checkpoints.save("narrow", folder)
        export_bundle(prior, decoder, folder / "bundle", [(16, 16)], target="ascend", progress=False)

    return kept.get("ascend", make)


@pytest.fixture(scope="module")
def bundle(folder):
    return Bundle(folder / "bundle")


def test_every_graph_is_there_for_both(bundle, capsys):
    graphs, targets = bundle.manifest.graphs, bundle.manifest.targets
    assert list(targets) == ["ascend"]
    assert [(row.name, row.batch, row.size) for row in targets["ascend"]] == [(row.name, row.batch, row.size) for row in graphs]
    for row in targets["ascend"]:
        part = row.mindir.partition("/")[0]
        names = zipfile.ZipFile(bundle.path / part / "ascend.zip").namelist()
        assert {row.mindir.partition("/")[2], row.config.partition("/")[2]} <= set(names)
        assert b"precision_mode=enforce_origin" in bundle.mindir(row.config)
    assert not list(bundle.path.rglob("*.cfg")) and not list(bundle.path.rglob("*.mindir"))
    assert main(["inspect", str(bundle.path), "--files"]) == 0
    assert "graphs for ascend" in capsys.readouterr().out
    assert Manifest.parse(bundle.manifest.dump()) == bundle.manifest


def test_the_cpu_takes_its_own(bundle, engine):
    class Reader:
        reads, takes_model_files = "mindir", False

    assert loadable(bundle, Reader, "cpu", 1).manifest == bundle.manifest
    assert loadable(bundle, engine, "cpu", 1).manifest == loadable(bundle, engine, "ascend", 1).manifest == bundle.manifest
    found = loadable(bundle, Reader, "ascend:1", 1)
    assert found.target == "ascend" and all(".ascend." in graph.mindir for graph in found.manifest.graphs)
    graph = found.manifest.graphs[0]
    with found.unpacked(graph, graph.mindir) as path:
        assert path.with_suffix(".cfg").read_text().startswith("[ascend_context]\n")


def test_float16_is_what_rounding_explains(bundle):
    """Attention that is one operator has no kernel on a CPU; all other graphs are run."""
    ascend = bundle.for_target("ascend")
    alone = {graph.title for graph in ascend.manifest.graphs
             if "PromptFlashAttention" in operators_in(ascend.mindir(graph.mindir), graph.mindir)}
    verdicts = list(verify(Models(ascend, engines.create("mindspore"), keep_loaded=False), files=False))
    for verdict in verdicts:
        if verdict.graph.title not in alone:
            assert verdict.right and verdict.error <= FLOAT16, str(verdict)
    assert len(verdicts) - len(alone) >= 5, alone


def test_the_converter_knows_all_operators(bundle, capsys):
    assert main(["check", str(bundle.path), "--lite", "2.7", "--device", "ascend"]) == 0
    rows = re.findall(r"\s(\d+)\s+(\d+)\s+(\d+)  \S+\.ascend\.mindir$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == len(bundle.manifest.graphs) and all(unknown == "0" for *_, unknown in rows)


def test_what_would_leave_them_behind_is_refused(folder, bundle, tmp_path):
    with pytest.raises(UserError, match="has graphs for ascend, too: export all its sizes at once, with --target"):
        add_sizes(bundle.path, folder / "decoder", [(16, 24)])
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"")
    with pytest.raises(UserError, match="has graphs for ascend, too: export the checkpoint with --lora and --target"):
        from kandinsky_mindir.export.lora.merging import merge_bundle

        merge_bundle(bundle.path, [], tmp_path / "merged")


@pytest.mark.parametrize("change, message", [
    (lambda row: row.update(mindir="../x.mindir"), "leaves the bundle"),
    (lambda row: row.update(mindir="nowhere/x.ascend.mindir"), "whose archive files does not list"),
    (lambda row: row.update(float32=3), "targets"),
    (lambda row: row.pop("config"), "config"),
])  # fmt: skip
def test_damaged_rows(change, message, bundle):
    data = json.loads(bundle.manifest.dump())
    change(data["targets"]["ascend"][0])
    with pytest.raises(UserError, match=message) as caught:
        Manifest.parse(sealed(data))
    assert "\n" not in str(caught.value)
