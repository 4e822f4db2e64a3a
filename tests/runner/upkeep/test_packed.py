"""Packed weights: the same numbers without a copy of the weights, and a bundle that is never the worse for them."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from types import SimpleNamespace

import numpy as np
import pytest
from damage import assert_one_line, cut, edit_json
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, UserError, cli
from kandinsky_mindir.runner.bundle import checked_files, packed
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME
from kandinsky_mindir.runner.bundle.ms_layout import HOLE, UNIT, WEIGHTS, Stretch
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.engine import EngineError
from kandinsky_mindir.runner.loading.footprint import mapped
from kandinsky_mindir.runner.loading.memory_plan import plan_memory, text_to_picture
from kandinsky_mindir.runner.loading.models import Models
from kandinsky_mindir.runner.upkeep import packing
from kandinsky_mindir.runner.upkeep.packing import pack


@pytest.fixture(scope="module")
def whole(bundles, engine, tmp_path_factory):
    """(folder of a bundle that is packed, what `pack` said)."""
    folder = shutil.copytree(bundles("micro"), tmp_path_factory.mktemp("packed") / "bundle")
    return folder, list(pack(Bundle(folder), engine))


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "bundle")


def as_exported(folder):
    return Bundle(folder, use_packed=False)


def picture(bundle):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a cat", generator=0, num_inference_steps=2, prior_num_inference_steps=2, output_type="np").images


def unet(bundle):
    return next(graph for graph in bundle.manifest.graphs if graph.name == "unet")


def load(bundle, engine, name="unet"):
    graph = next(graph for graph in bundle.manifest.graphs if graph.name == name)
    with Models(bundle, engine, keep_loaded=False).lease(name, graph.batch, graph.size):
        pass


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_same_picture(whole):
    bundle = Bundle(whole[0])
    assert set(bundle.packed.graphs) >= set(unet(bundle).ms)
    np.testing.assert_array_equal(picture(bundle), picture(as_exported(whole[0])))


def test_graphs_share_what_is_packed(whole):
    """Nothing is left as it is, and a second batch adds its layout alone."""
    folder, outcomes = whole
    bundle = Bundle(folder)
    assert [outcome.graph for outcome in outcomes] == [graph for graph in bundle.manifest.graphs for _ in graph.ms]
    first, second = (outcome for outcome in outcomes if outcome.graph.name == "unet")
    assert 0 < second.added < 0.01 * first.added
    assert bundle.packed.size == sum(outcome.added or 0 for outcome in outcomes)
    assert not leftovers(folder) and not leftovers(folder / packed.FOLDER)


def test_what_it_says_of_memory(whole, capsys):
    """A plan counts no weights that are files, and names them."""
    bundle, plain = Bundle(whole[0]), as_exported(whole[0])
    graphs = text_to_picture(bundle.manifest, (64, 64))
    with_packed, without = plan_memory(bundle, graphs), plan_memory(plain, graphs)
    assert with_packed.peak < without.peak
    assert "of the system's cache of files" in str(with_packed) and "cache" not in str(without)
    sizes = [stretch.length for stretch in bundle.packed.graphs[unet(bundle).ms[0]].packed]
    assert mapped(bundle, unet(bundle)) == sum(sizes) and min(sizes) >= UNIT
    assert cli.main(["inspect", str(whole[0])]) == 0
    assert "MB, for this machine" in capsys.readouterr().out


CPUS = len(os.sched_getaffinity(0))
OLDER = "not for this machine, or an older bundle: run kandinsky-mindir pack"


@pytest.mark.parametrize("change, note", [
    (lambda folder, monkeypatch: monkeypatch.setattr(packed, "processor", lambda: "x86_64 avx"), OLDER),
    pytest.param(lambda folder, monkeypatch: monkeypatch.setattr(packed, "LITE_VERSION", "2.0.1"), OLDER, marks=pytest.mark.slow),
    (lambda folder, monkeypatch: monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CPUS + 1))),
     f"for this machine with --threads {CPUS}"),
    (lambda folder, monkeypatch: edit_json(folder / FILE_NAME, lambda manifest: manifest["source"].update(made="again")), OLDER),
], ids=["processor", "lite", "CPUs", "export"])  # fmt: skip
def test_made_for_something_else(copy, engine, monkeypatch, capsys, change, note):
    """It is not used, whatever became of it, the bundle works as it was exported, and packing again replaces it."""
    change(copy, monkeypatch)
    bundle, weights = Bundle(copy), next((copy / packed.FOLDER).glob("unet/*.bin"))
    moved = weights.rename(copy.parent / "elsewhere")
    assert bundle.packed is None and bundle.model(unet(bundle).ms[0]).files is bundle
    load(bundle, engine)
    moved.rename(weights)
    assert cli.main(["inspect", str(copy)]) == 0
    assert note in capsys.readouterr().out
    list(pack(bundle, engine))
    assert bundle.packed and not leftovers(copy)


def test_float16_is_refused_and_what_is_packed_for_another_precision_is_said(copy):
    """Lite's kernels in float16 keep nothing: the line does not say to pack for them."""
    with pytest.raises(UserError, match="in float16 keep their weights .*: use .* as it is, or pack it with --precision float32"):
        list(pack(Bundle(copy), SimpleNamespace(precision="float16", kernels="lite", takes_model_files=True)))
    said = packed.why_not(copy, None, "float16")
    assert said.endswith("more memory; choose --precision float32") and "float32, not float16" in said
    assert packed.why_not(copy, None, "bfloat16").endswith("choose --precision float32, or run kandinsky-mindir pack on the bundle again")


def test_engines_that_cannot_use_it(whole, engine):
    """Nothing of it is counted on: what they load takes its whole memory."""
    vendor = SimpleNamespace(takes_model_files=False, reads="lite")
    for lite, device in ((vendor, "cpu"), (engine, "ascend")):
        bundle = Models(Bundle(whole[0]), lite, device=device, keep_loaded=False).bundle
        assert bundle.packed is None and mapped(bundle, unet(bundle)) == 0


def test_a_plan_before_and_after(copy, engine):
    shutil.rmtree(copy / packed.FOLDER)
    bundle = Bundle(copy)
    graphs = text_to_picture(bundle.manifest, (64, 64))
    before = plan_memory(bundle, graphs).peak
    list(pack(bundle, engine))
    assert plan_memory(bundle, graphs).peak < before


def first(data):
    """What the manifest says of a graph of the UNet."""
    return next(graph for path, graph in data["graphs"].items() if path.startswith("unet/unet_b1"))


def misplaced(field, value):
    return lambda path: edit_json(path, lambda data: first(data)["packed"][0].__setitem__(field, value))


def unsealed(change):
    """A change of the manifest's text that does not seal it anew."""
    return lambda path: path.write_text(change(path.read_text()))


@pytest.mark.parametrize("name, damage, message", [
    ("unet/*.bin", lambda path: cut(path, -1), "the manifest says"),
    ("unet/*.bin", lambda path: path.unlink(), "is missing"),
    ("unet/unet_b1*.bin", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "does not match its sha256"),
    ("unet/unet_b1*.layout", lambda path: path.write_bytes(bytes(path.stat().st_size)), "does not match its sha256"),
    (FILE_NAME, lambda path: path.unlink(), "cannot be read"),
    (FILE_NAME, lambda path: cut(path, 100), "is not JSON"),
    (FILE_NAME, unsealed(lambda text: text.replace('"lite": "2', '"lite": "3')), "not as pack wrote it"),
    (FILE_NAME, unsealed(lambda text: "[]"), "expected 'object', got 'array'"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: data.update(format=1)), "has format 1, this version reads format 4"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: data.pop("graphs")), "missing required field 'graphs'"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: data["graphs"].update(a={"layout": "a", "packed": [[1]]})),
     r"packed\[0\]: expected 'array' of length 4, got 1"),
    (FILE_NAME, misplaced(1, "../a"), "is no place of a weight"),
    (FILE_NAME, misplaced(0, 2**64), "is no place of a weight"),
    (FILE_NAME, misplaced(1, HOLE), "is no place of a weight"),
    (FILE_NAME, misplaced(2, 1), "is no place of a weight"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: first(data).update(packed=[])), "expected 'array' of length >= 1"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: first(data).update(layout="unet/a")), "is none of its files"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: first(data).update(layout=[])), "layout: expected 'str', got 'array'"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: data["made_for"].update(threads="2")), "threads: expected 'int', got 'str'"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: data["files"].update({"a": {"size": -1, "sha256": ""}})), "damaged"),
    (FILE_NAME, lambda path: edit_json(path, lambda data: data["files"].update({"../a": {"size": 1, "sha256": "0" * 64}})),
     "leaves the bundle"),
])  # fmt: skip
def test_damage_is_named(copy, engine, name, damage, message):
    path = next((copy / packed.FOLDER).glob(name))
    damage(path)
    assert_one_line(rf"{path}.*{message}.*run kandinsky-mindir pack on the bundle again, or remove", lambda: load(Bundle(copy), engine))
    with pytest.raises(ValueError, match=message):
        Bundle(copy).verify_files()
    shutil.rmtree(copy / packed.FOLDER)
    load(Bundle(copy), engine)


def test_interrupted(copy, engine, monkeypatch):
    """What was there stays; what a killed one left goes; two at a time do not meet."""
    before = (copy / packed.FOLDER / FILE_NAME).read_bytes()
    leftover = copy / f".{packed.FOLDER}.partial"
    (leftover / "folder").mkdir(parents=True)
    (leftover / "file").touch()
    rows = pack(Bundle(copy), engine)
    next(rows)
    assert not (leftover / "folder").exists() and not (leftover / "file").exists()
    assert_one_line("another process is writing .*packed: wait for it", lambda: next(pack(Bundle(copy), engine)))
    rows.close()  # as Ctrl-C between two steps
    assert not leftovers(copy)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_random", stop)
    with pytest.raises(KeyboardInterrupt):
        next(pack(Bundle(copy), engine))
    assert not leftovers(copy) and (copy / packed.FOLDER / FILE_NAME).read_bytes() == before
    load(Bundle(copy), engine)


@pytest.mark.parametrize("put", [
    lambda target: target.symlink_to(target.parent / "unet"),
    lambda target: target.write_text("notes"),
    lambda target: target.mkdir(),
    lambda target: target.symlink_to("nowhere"),
], ids=["link", "file", "folder", "dangling link"])  # fmt: skip
def test_what_pack_did_not_write(copy, engine, put):
    """It is not replaced, nor written through."""
    target = copy / packed.FOLDER
    shutil.rmtree(target)
    put(target)
    assert_one_line(f"{target} is no folder that pack wrote: remove it, or move it away", lambda: next(pack(Bundle(copy), engine)))
    assert os.path.lexists(target) and not leftovers(copy)


def test_a_killed_one_left_no_room(copy, engine, monkeypatch):
    """What it left is cleared before the room is measured."""
    leftover = copy / f".{packed.FOLDER}.partial"
    leftover.mkdir()
    (leftover / "large").touch()
    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "disk_usage",
                      lambda path: SimpleNamespace(free=0 if (leftover / "large").exists() else 10**12))
        next(rows := pack(Bundle(copy), engine))
    rows.close()


def test_a_disk_that_fails(copy, engine, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "sha256_of", fail)
    assert_one_line(rf"{copy} cannot be packed \(\[Errno 28\] No space left on device\): free disk space",
                    lambda: list(pack(Bundle(copy), engine)))
    assert not leftovers(copy)


def test_no_room(copy, engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "disk_usage", lambda _: SimpleNamespace(free=12_300_000))
        assert_one_line(r"takes about .* of disk, 12.3 MB is left there: free some", lambda: next(pack(Bundle(copy), engine)))
    source = as_exported(copy).model(unet(Bundle(copy)).ms[0])
    with source.assembled() as file, open(os.devnull, "rb") as nowhere:  # nothing can be laid out in it
        with pytest.raises(EngineError, match="packed weights cannot be written to the disk: Bad file descriptor"):
            engine.pack(file, nowhere)


def test_nothing_to_pack(copy, engine, monkeypatch):
    bundle = Bundle(copy)
    bundle.manifest = replace(bundle.manifest, graphs=tuple(replace(graph, ms=()) for graph in bundle.manifest.graphs))
    assert_one_line("has no graphs in Lite's own format", lambda: next(pack(bundle, engine)))


def test_the_command(copy, capsys):
    shutil.rmtree(copy / packed.FOLDER)
    assert cli.main(["pack", str(copy), "--threads", "1"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert Bundle(copy).packed is None and Bundle(copy).for_engine(1).packed  # it suits that number alone
    assert len(rows) == len(Bundle(copy).manifest.graphs) and last.startswith(f"{copy / packed.FOLDER}: ")


@pytest.mark.parametrize("line, words", [
    ("flags\t\t: fpu vme sse sse4_2 avx2 fma avx512f hypervisor", "avx2 avx512f fma fpu sse sse4_2"),
    ("Features\t: fp asimd evtstrm crc32 sve", "asimd fp sve"),
    ("nothing", ""),
])
def test_processor(monkeypatch, line, words):
    monkeypatch.setattr(Path, "read_text", lambda path: f"processor\t: 0\n{line}\nbugs\t: avx_bug\n")
    assert packed.processor() == f"{packed.platform.machine()} {words}".strip()


def test_holes():
    """For packed tensors alone: one of whole pages and a rest, one without."""
    stretches = [Stretch(10, WEIGHTS, 0, 5), Stretch(20, WEIGHTS, 5, 10), Stretch(UNIT, WEIGHTS, UNIT, UNIT),
              Stretch(2 * UNIT, WEIGHTS, 2 * UNIT, 7), Stretch(2 * UNIT + 11, WEIGHTS, 9 * UNIT, UNIT)]
    found = list(packing.without(stretches, {20, UNIT}))
    assert [stretch.source for stretch in found] == [WEIGHTS, HOLE, HOLE, HOLE, WEIGHTS]
    assert [(stretch.position, stretch.length) for stretch in found] == [(stretch.position, stretch.length) for stretch in stretches]


def test_files_are_hashed_side_by_side(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).touch()
    meeting = Barrier(2, timeout=30)
    monkeypatch.setattr(checked_files, "sha256_of", lambda _: (meeting.wait(), "0" * 64)[1])
    files = checked_files.CheckedFiles(tmp_path, {name: SimpleNamespace(size=0, sha256="0" * 64) for name in "ab"}, "")
    threads = [Thread(target=files.file, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not meeting.broken
