"""A size added to a bundle gives what one export of all sizes gives, and compiles nothing twice."""

import json
import shutil

import numpy as np
import pytest
from checkpoints import SIZES
from damage import assert_one_line, edit_json
from kandinsky_mindir.export import further_sizes, parts
from kandinsky_mindir.export.bundle import CONFIGURATION, export_bundle
from kandinsky_mindir.export.further_sizes import add_sizes
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main
from safetensors.numpy import load_file, save_file

FIRST, SECOND = SIZES["narrow"]
NEW = (24, 24)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def checkpoint(bundles, tmp_path):
    """A copy of the decoder's folder, and the bundle that was made of it."""
    bundle = bundles("narrow")
    return shutil.copytree(bundle.parent / "decoder", tmp_path / "decoder"), bundle


@pytest.mark.slow
def test_a_size_more_is_as_if_it_had_been_there(bundles, tmp_path, monkeypatch):
    """Byte for byte, but for the versions that a manifest names; weights and the graphs that were there stay the same files."""
    whole = bundles("narrow")
    bundle = export_bundle(whole.parent / "prior", whole.parent / "decoder", tmp_path / "bundle", [FIRST], progress=False)
    files = {name: path.stat().st_ino for name, path in contents(bundle).items()}
    compiled, write = tmp_path / "compiled", parts._write_graph

    def write_graph(folder, spec, *rest):
        with compiled.open("a") as file:
            print(spec.stem, file=file)
        return write(folder, spec, *rest)

    monkeypatch.setattr(parts, "_write_graph", write_graph)
    assert add_sizes(bundle, whole.parent / "decoder", [FIRST, SECOND], progress=False) == bundle
    assert compiled.read_text().split() == ["unet/unet_b1_16x24", "unet/unet_b2_16x24", "movq/movq_decoder_b1_16x24",
                                          "movq/movq_encoder_b1_16x24"]
    found, expected = contents(bundle), contents(whole)
    assert found.keys() == expected.keys()
    for name in found.keys() - {FILE_NAME}:
        assert found[name].read_bytes() == expected[name].read_bytes(), name
    added, at_once = (json.loads((folder / FILE_NAME).read_text()) for folder in (bundle, whole))
    for manifest in (added, at_once):
        del manifest["seal"], manifest["versions"]
    assert added == at_once
    # Files that nothing was added to are the same on the disk.
    changed = {name for name, inode in files.items() if found[name].stat().st_ino != inode}
    assert changed <= {FILE_NAME, *(f"{part}/{name}" for part in ("unet", "movq") for name in ("mindir.zip", "lite_weights.bin"))}
    assert [path.name for path in tmp_path.iterdir() if path.name != "compiled"] == ["bundle"]


def other_weights(decoder):
    path = decoder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.bias"] = np.nextafter(tensors["conv_in.bias"], np.float32(9))
    save_file(tensors, path)


@pytest.mark.parametrize("change, why", [
    (other_weights, "their weights of the unet differ"),
    (lambda decoder: edit_json(decoder / "unet" / "config.json", lambda config: config.update(norm_eps=1e-4)),
     "their configurations differ"),
])  # fmt: skip
def test_another_checkpoint_is_refused(checkpoint, tmp_path, change, why):
    decoder, bundle = checkpoint
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    before = {name: path.read_bytes() for name, path in contents(copy).items()}
    change(decoder)
    assert_one_line(rf"{decoder} is not the checkpoint that {copy} was made of \({why}\): give that one, or export all sizes",
                    lambda: add_sizes(copy, decoder, [NEW], progress=False))
    assert {name: path.read_bytes() for name, path in contents(copy).items()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "decoder"]


@pytest.mark.parametrize("sizes, words", [
    ([FIRST], "has the size 16x16: nothing to add"),
    ([FIRST, SECOND], "has the size 16x16 and 16x24: nothing to add"),
    ([(18, 16)], "size 18x16: both sides must be multiples of 4; the next size up is 20x16"),
    ([(1 << 20, 1 << 20)], "pictures have from 1 to"),
])  # fmt: skip
def test_sizes_that_cannot_be_added(checkpoint, sizes, words):
    decoder, bundle = checkpoint
    assert_one_line(words, lambda: add_sizes(bundle, decoder, sizes, progress=False))


def test_a_bundle_that_does_not_say_of_what_it_was_made(checkpoint, tmp_path):
    decoder, bundle = checkpoint
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    edit_json(copy / FILE_NAME, lambda manifest: manifest["source"].pop(CONFIGURATION))
    assert_one_line("does not say how its decoder was configured: a version made it that could not add sizes; export it again",
                    lambda: add_sizes(copy, decoder, [NEW], progress=False))


def test_a_damaged_bundle_gets_no_size(checkpoint, tmp_path):
    decoder, bundle = checkpoint
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    data = bytearray((copy / "unet" / "weights.bin").read_bytes())
    data[-1] ^= 1
    (copy / "unet" / "weights.bin").write_bytes(data)
    assert_one_line("unet/weights.bin", lambda: add_sizes(copy, decoder, [NEW], progress=False))


@pytest.mark.parametrize("more, words", [
    (["--size", "16x16"], "--add-size takes --output, --decoder, --engine and --quiet alone"),
    (["--prior", "prior"], "--add-size takes --output"), (["--overwrite"], "--add-size takes --output"),
    (["--no-image-encoder"], "--add-size takes --output"), ([], "missing is not a bundle"),
])  # fmt: skip
def test_the_command_line(more, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--output", "missing", "--decoder", "d", "--add-size", "16x16", *more]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_without_add_size_a_prior_is_wanted(capsys):
    assert main(["export", "--output", "missing", "--decoder", "d"]) == 2
    assert "--prior is missing: give the prior's checkpoint folder" in capsys.readouterr().err


def test_where_new_graphs_stand(bundles):
    """Behind those of their name, as one export has them."""
    graphs = list(Bundle(bundles("narrow")).manifest.graphs)
    first = [graph for graph in graphs if graph.size != SECOND]
    for graph in graphs:
        if graph.size == SECOND:
            further_sizes._insert(first, graph)
    assert first == graphs


def test_files_without_links_are_copied(tmp_path, monkeypatch):
    """As on exFAT."""
    (tmp_path / "old" / "unet").mkdir(parents=True)
    (tmp_path / "old" / "packed").mkdir()
    for name in ("unet/weights.bin", "constants.npz", FILE_NAME, "packed/x"):
        (tmp_path / "old" / name).write_text(name)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(further_sizes.os, "link", refuse)
    (tmp_path / "new").mkdir()
    further_sizes._link(tmp_path / "old", tmp_path / "new", ["unet"], [])
    assert sorted(contents(tmp_path / "new")) == ["constants.npz", "unet/weights.bin"]
    assert (tmp_path / "new" / "unet" / "weights.bin").read_text() == "unet/weights.bin"


def test_what_grows_is_a_file_of_its_own(tmp_path):
    """All other files are the same on the disk: the old bundle must not change, and no weights lie there twice."""
    names = ["unet/weights.bin", "unet/mindir.zip", "unet/lite_weights.bin", "prior/mindir.zip", "prior/lite_weights.bin"]
    for name in names:
        (tmp_path / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "old" / name).write_text(name)
    (tmp_path / "new").mkdir()
    further_sizes._link(tmp_path / "old", tmp_path / "new", ["unet"], [])
    linked = {name for name in names if (tmp_path / "new" / name).samefile(tmp_path / "old" / name)}
    assert linked == {"unet/weights.bin", "prior/mindir.zip", "prior/lite_weights.bin"}
    assert all((tmp_path / "new" / name).read_text() == name for name in names)
