"""Bundles of narrower weights: the same pictures, no more memory, and float32 for who needs it."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from damage import assert_one_line
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from kandinsky_mindir.runner import engine as engines
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.loading.footprint import footprint
from kandinsky_mindir.runner.loading.loader import load
from kandinsky_mindir.runner.upkeep import unpacking
from kandinsky_mindir.runner.upkeep.packing import pack
from kandinsky_mindir.runner.upkeep.unpacking import unpack
from stored import stored_again


@pytest.fixture(scope="module")
def stored(bundles):
    """float16, as the checkpoint has it."""
    return bundles("micro")


@pytest.fixture(scope="module")
def wide(stored, tmp_path_factory):
    return stored_again(stored, tmp_path_factory.mktemp("wide") / "bundle", "float32")


def picture(bundle, **options):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a cat", generator=0, prior_num_inference_steps=2, num_inference_steps=2, output_type="np").images


def test_pictures_are_those_of_float32_weights_bit_for_bit(stored, wide):
    assert (Bundle(stored).manifest.format, Bundle(wide).manifest.format) == (5, 4)
    np.testing.assert_array_equal(picture(stored), picture(wide))


def own_memory(process: int) -> int:
    """Bytes that nobody shares and no file holds."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def test_no_wide_weights_stay_in_memory(stored, wide, engine):
    """The UNet has 26 MB of them in float32."""
    found = []
    for path in (stored, wide):
        bundle = Bundle(path)
        graph = bundle.manifest.find("unet", 1, (64, 64))
        with load(bundle, graph, engine, "cpu", 1, 1) as model:
            model.run([np.zeros(tensor.shape, tensor.dtype) for tensor in model.inputs])
            found.append(own_memory(model._process.pid))
        found.append(footprint(bundle, graph, 1).kept)
    assert found[0] < found[2] + 4_000_000  # blocks of 1 MB that a kernel reads without packing them
    assert found[3] < found[1] < found[3] + 8_000_000, "the plan counts the largest"


def test_unpacked_for_mindspore(stored, wide, tmp_path, engine, capsys):
    assert main(["unpack", str(stored), "--output", str(tmp_path / "mindir")]) == 0
    assert "mindir: " in capsys.readouterr().out
    bundle = Bundle(stored)
    assert (tmp_path / "mindir" / "unet" / "weights.bin").read_bytes() == (wide / "unet" / "weights.bin").read_bytes()
    graph = bundle.manifest.find("prior", 1)
    random = np.random.default_rng(0)
    inputs = {tensor.name: random.standard_normal(tensor.shape).astype(np.float32) for tensor in graph.inputs}
    outputs = []
    with bundle.model(graph.ms[0]).assembled() as file, bundle.unpacked(graph, graph.lite) as unpacked:
        for source in (file, unpacked, tmp_path / "mindir" / graph.lite):
            model = engine.load(source)
            outputs.append(model.run([inputs[tensor.name] for tensor in model.inputs])[0])
            model.close()
    for other in outputs[1:]:  # kernels may be others: a hundred roundings
        assert np.allclose(outputs[0], other, rtol=0, atol=1e-5 * np.abs(other).max())
    assert main(["unpack", str(wide), "--output", str(tmp_path / "again")]) == 0
    names = {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*")}
    assert names == {path.relative_to(tmp_path / "mindir") for path in (tmp_path / "mindir").rglob("*")}
    assert all((tmp_path / "again" / name).read_bytes() == (tmp_path / "mindir" / name).read_bytes()
               for name in names if (tmp_path / "again" / name).is_file())


def test_what_cannot_be_unpacked_is_one_line(stored, tmp_path, monkeypatch):
    bundle = Bundle(stored)
    assert_one_line("choose another --output", lambda: unpack(bundle, tmp_path))
    assert_one_line("does not exist: make it first", lambda: unpack(bundle, tmp_path / "none" / "folder"))
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    assert_one_line("takes about .* of disk, .* is left: free some", lambda: unpack(bundle, tmp_path / "folder"))
    assert not os.listdir(tmp_path)


def test_inspect_says_the_types(stored, capsys):
    assert main(["inspect", str(stored)]) == 0
    said = capsys.readouterr().out
    assert "unet/stored_weights.bin" in said and "MB float16\n" in said and "kandinsky-mindir unpack writes" in said


@pytest.mark.slow
def test_packed_and_int8(stored, tmp_path):
    """Packing changes nothing. int8 is off by what its steps allow: of values spread normally the largest of 32 is about 2.3
    times their rms, a step 2.3 / 127, an error 2.3 / 127 / sqrt(12) = 0.5 %. Some 60 products in a row make that 4 % of a
    picture's contrast, twice in 20 steps of guidance at most: 20 dB of the picture is allowed."""
    folder = stored_again(stored, tmp_path / "int8", "int8")
    before = picture(folder)
    assert -10 * np.log10(np.mean((before - picture(stored)) ** 2)) > 20
    for _ in pack(Bundle(folder), engines.create("bridge")):
        pass
    assert Bundle(folder).packed is not None
    np.testing.assert_array_equal(picture(folder), before)
    size = {path: sum(info.size for info in Bundle(path).manifest.files.values() if info.size > 500_000) for path in (folder, stored)}
    assert size[folder] < 0.60 * size[stored]  # MoVQ, a twelfth of this checkpoint, stays float16; it is 1 % of the real one
