"""LoRAs merged into a bundle: what changes is what must, it computes what diffusers does, and the bundle that was there stays."""

import contextlib
import io
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import pipelines
from damage import assert_one_line
from format_reader import Reader
from kandinsky_mindir.export.checkpoint.safetensors_reader import TensorFiles
from kandinsky_mindir.export.checkpoint.tensor_names import SOURCES
from kandinsky_mindir.export.further_sizes import add_sizes
from kandinsky_mindir.export.lora import merging
from kandinsky_mindir.export.lora.adapter import Given
from kandinsky_mindir.export.lora.merging import merge_bundle
from kandinsky_mindir.export.lora.reached import Place, in_layout, twins
from kandinsky_mindir.export.lora.tensors import MergedTensors, read_adapters, total
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, TorchGenerator
from kandinsky_mindir.runner.bundle import ms_layout
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME
from kandinsky_mindir.runner.bundle.ms_layout import LITE_WEIGHTS, UNIT, Layout, Stretch
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.bundle.stored.wide_file import open_weights, read_tensor, wide_index
from kandinsky_mindir.runner.bundle.tensor_index import STORED, StoredTensor
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.upkeep.replay import read_example
from loras import SPELLINGS, lora, modules, save
from psnr import LEAST_PSNR, psnr

SCALE = 0.7
FOLDERS = {"unet": "decoder/unet", "prior": "prior/prior"}
# Sums in float64, rounded once: a product in front of it (checkpoint/tensor_names.py) is rounded once more, by half a step.
NEAR = 2.4e-7
MOST_WRITTEN = 1.1  # bytes that a merge writes, for each byte of the weights that change


def reference(part):
    prior, decoder = pipelines("narrow")
    return prior.prior if part == "prior" else decoder.unet


@pytest.fixture(scope="module")
def pairs():
    """part -> its LoRA: all that Kandinsky's trainers train."""
    return {part: lora(reference(part), modules(reference(part), part)) for part in FOLDERS}


@pytest.fixture(scope="module")
def files(pairs, tmp_path_factory):
    """The UNet's in old names, the prior's as peft writes it."""
    folder = tmp_path_factory.mktemp("loras")
    return [save(folder / "style.safetensors", SPELLINGS["old"]("unet", pairs["unet"])),
            save(folder / "prior.safetensors", SPELLINGS["peft"]("prior", pairs["prior"]))]


@pytest.fixture(scope="module")
def merged(bundles, files, tmp_path_factory):
    """A merge through the command line; (its folder, what was printed)."""
    output, said = tmp_path_factory.mktemp("merged") / "bundle", io.StringIO()
    before = contents(bundles("narrow"))
    with contextlib.redirect_stdout(said):
        assert main(["merge", str(bundles("narrow")), "--lora", f"{files[0]}:{SCALE}", "--lora", str(files[1]), "--output",
                     str(output), "--quiet"]) == 0
    assert contents(bundles("narrow")) == before, "the bundle that was merged stays as it is"
    return output, said.getvalue()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shared(bundle, base):
    """The files of a bundle that are files of another, on the disk."""
    others = {(base / name).stat().st_ino for name in Bundle(base).manifest.files}
    return {name for name in Bundle(bundle).manifest.files if (bundle / name).stat().st_ino in others}


def assert_weights(bundle, base, loras):
    """Every tensor of the bundle is what an export with the LoRAs would store."""
    checkpoint = {part: TensorFiles(base.parent / folder, "diffusion_pytorch_model") for part, folder in FOLDERS.items()}
    adapters = read_adapters(loras, checkpoint)
    for part in FOLDERS:
        tensors = MergedTensors(part, checkpoint[part], adapters)
        sources = SOURCES[part](tuple(tensors.shapes))
        for name, place in Bundle(bundle).places(part).items():
            found = read_tensor(bundle / part, place)
            expected = sources[name].combine(*map(tensors.read, sources[name].names))
            assert np.abs(found - expected).max() <= NEAR * np.abs(expected).max(), name


def test_only_what_changes_is_written(merged, bundles, files, pairs):
    output, said = merged
    base = bundles("narrow")
    assert_weights(output, base, [Given(files[0], SCALE), Given(files[1])])
    bundle = Bundle(output)
    bundle.verify_files()
    new = bundle.manifest.files.keys() - shared(output, base)
    assert new == {name for part in FOLDERS for name in bundle.manifest.files if name.startswith(f"{part}/")
                   and name.endswith(("/stored_1_weights.bin", "/weights.index.json", ".golden.npz"))}
    changed = sum(4 * up.shape[0] * down.shape[1] for some in pairs.values() for down, up in some.values())
    weights = {name: bundle.manifest.files[name].size for name in new if name.endswith("weights.bin")}
    # A header of 64 bytes each, and up to 63 between tensors
    assert changed <= sum(weights.values()) <= changed + 64 * (2 + sum(map(len, pairs.values())))
    assert "style.safetensors: 24 modules of the unet, scale 0.7" in said and "4 modules of the prior, scale 1\n" in said
    assert "converted anew" not in said and f"{changed / 1e6:.1f} MB of weights changed" in said
    source = bundle.manifest.source
    assert "style.safetensors (sha256" in source["lora"] and "prior.safetensors" in source["lora"]
    assert source["sealed"].startswith("examples of prior_context, prior, unet_context, unet computed in float64 from the merged")


def test_pictures_are_those_of_fused_weights(merged, bundles, pairs):
    """diffusers, with the same LoRAs by names that it reads whole, fused."""
    prior, decoder = pipelines.__wrapped__("narrow")  # others' stay as they are
    for module, part, scale in ((decoder.unet, "unet", SCALE), (prior.prior, "prior", 1.0)):
        module.load_lora_adapter(SPELLINGS["dotted"](part, pairs[part]), prefix=None)
        module.fuse_lora(lora_scale=scale)
    generator = torch.Generator().manual_seed(5)
    embeds = prior("a cat", generator=generator, num_inference_steps=2).to_tuple()
    expected = decoder(*embeds, generator=generator, num_inference_steps=3, height=16, width=16, output_type="np").images
    pictures = []
    for bundle in (merged[0], bundles("narrow")):
        pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, scheduler="checkpoint")
        pipeline.set_progress_bar_config(disable=True)
        pictures.append(pipeline("a cat", generator=TorchGenerator(5), prior_num_inference_steps=2, num_inference_steps=3,
                                 height=16, width=16, output_type="np").images)  # fmt: skip
    assert psnr(pictures[0], expected) >= LEAST_PSNR
    assert psnr(pictures[1], expected) < LEAST_PSNR - 20, "without them it is another picture"


def test_a_graph_as_mindir_finds_its_weights(merged, engine):
    """Engines that take no .ms files: the weights are written beside the graph, merged."""
    bundle = Bundle(merged[0])
    graph = bundle.manifest.find("prior")
    outputs = []
    random = np.random.default_rng(0)
    inputs = {tensor.name: random.standard_normal(tensor.shape).astype(np.float32) for tensor in graph.inputs}
    with bundle.unpacked(graph, graph.lite) as path, bundle.model(graph.ms[0]).assembled() as file:
        assert {each.name for each in path.parent.iterdir()} == {path.name, "weights.bin"}
        for source in (path, file):
            model = engine.load(source)
            outputs.append(model.run([inputs[tensor.name] for tensor in model.inputs])[0])
            model.close()
    assert np.allclose(*outputs, rtol=0, atol=1e-5 * np.abs(outputs[0]).max())  # kernels may be others: a hundred roundings


def test_narrower_weights_stay_and_sums_are_float32(bundles, tmp_path):
    """A float16 bundle. The merge itself holds the changed graphs to float64."""
    base, prior = bundles("micro"), pipelines("micro")[0].prior
    file = save(tmp_path / "prior.safetensors", SPELLINGS["peft"]("prior", lora(prior, modules(prior, "prior"))))
    found = merge_bundle(base, [Given(file)], tmp_path / "merged", progress=False)
    assert found.converted == []
    written = Bundle(tmp_path / "merged").manifest.files.keys() - shared(tmp_path / "merged", base) | {FILE_NAME}
    assert found.written == sum((tmp_path / "merged" / name).stat().st_size for name in written)
    assert found.written <= MOST_WRITTEN * found.changed
    before, after = Bundle(base), Bundle(tmp_path / "merged")
    rows, tensors = after.tensors("prior"), TensorFiles(base.parent / FOLDERS["prior"], "diffusion_pytorch_model")
    adapters = read_adapters([Given(file)], {"prior": tensors})
    for name, old in before.places("prior").items():
        expected, found = read_tensor(base / "prior", old), read_tensor(tmp_path / "merged" / "prior", after.places("prior")[name])
        if rows[name].file == STORED:
            assert rows[name] == before.tensors("prior")[name]
        else:
            assert (rows[name].file, rows[name].dtype) == ("stored_1_weights.bin", "float32")
            expected = (expected.astype(np.float64) + total(adapters, "prior", name.removesuffix(".weight"))).astype(np.float32)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert {row.file for row in rows.values()} == {STORED, "stored_1_weights.bin"}


@pytest.mark.slow
def test_an_export_with_loras_stores_the_same_weights(merged, bundles, files, tmp_path):
    """Bit for bit: both add in float64 and round once. Its own graphs are verified as every export's are."""
    folder = bundles("narrow").parent
    arguments = ["export", "--prior", folder / "prior", "--decoder", folder / "decoder", "--size", "16x16", "--output", tmp_path / "bundle",
                 "--lora", f"{files[0]}:{SCALE}", "--lora", files[1], "--quiet"]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    exported, other = Bundle(tmp_path / "bundle"), Bundle(merged[0])
    assert exported.manifest.source["lora"] == other.manifest.source["lora"]
    for part in FOLDERS:
        places = other.places(part)
        for name, place in exported.places(part).items():
            arrays = [read_tensor(each.path / part, tensor) for each, tensor in ((exported, place), (other, places[name]))]
            assert np.array_equal(*arrays), name


@pytest.mark.slow
def test_merged_once_more(merged, bundles, files, tmp_path):
    """The weights of before lie in two files, and go to a third; what was added is taken away again."""
    output = tmp_path / "bundle"
    again = merge_bundle(merged[0], [Given(files[0], -SCALE)], output, progress=False)
    bundle, base = Bundle(output), Bundle(bundles("narrow"))
    assert again.converted == [] and bundle.manifest.source["lora"].count("style.safetensors") == 2
    assert (output / "unet" / "stored_2_weights.bin").exists()
    assert {"prior/stored_1_weights.bin", "unet/unet_b1_16x16.inputs.npz"} <= shared(output, merged[0])
    for name, place in bundle.places("unet").items():
        found, expected = (read_tensor(each / "unet", tensor) for each, tensor in ((output, place), (base.path, base.places("unet")[name])))
        # each of two sums is rounded by half a step of numbers up to a few times the weight's largest
        assert np.abs(found - expected).max() <= 1e-6 * max(np.abs(expected).max(), 1), name


@pytest.mark.slow
def test_convolutions_are_converted_anew(bundles, tmp_path, monkeypatch):
    """As if Lite's converter had put their kernels into forms of its own."""
    monkeypatch.setattr(merging, "in_layout", lambda *_: set())
    path = save(tmp_path / "lora.safetensors", SPELLINGS["peft"]("unet", lora(reference("unet"), ["conv_in", "conv_out"])))
    base = bundles("narrow")
    before = contents(base)
    found = merge_bundle(base, [Given(path)], tmp_path / "bundle", progress=False)
    assert_weights(tmp_path / "bundle", base, [Given(path)])
    assert contents(base) == before
    assert found.converted == [f"unet batch {batch} 16x{width}" for width in (16, 24) for batch in (1, 2)]
    Bundle(tmp_path / "bundle").verify_files()


def test_products_of_kernels():
    """What models/winograd.py stores in place of a kernel: linear, so that what is added to them is made of what is added to it."""
    random = np.random.default_rng(0)
    kernel, delta = random.standard_normal((2, 5, 7, 3, 3)).astype(np.float32)
    sources = SOURCES["unet"](("x.conv1.weight",))
    assert sources.pop("x.conv1.kernel").combine(kernel) is kernel  # of graphs for Ascend, which a merge refuses
    assert len(sources) == 8
    for name, source in sources.items():
        found = source.combine(kernel) + merging._as_stored(name, delta.astype(np.float64))
        assert np.allclose(found, source.combine(kernel + delta), rtol=0, atol=1e-6), name  # sums of nine numbers below 4
    index = {name: StoredTensor("weights.bin", 0, source.combine(kernel).shape) for name, source in sources.items()}
    assert merging._weights(index) == {"x.conv1": (5, 7, 3, 3)}
    assert {merging._module_of(name) for name in sources} == {"x.conv1"}


@pytest.mark.parametrize("stop", (KeyboardInterrupt(), pytest.param(OSError(28, "No space left on device"), marks=pytest.mark.slow)))
def test_what_ends_a_merge_leaves_nothing(stop, bundles, files, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "seal_again", lambda *_: (_ for _ in ()).throw(stop))
    with pytest.raises(type(stop)):
        merge_bundle(bundles("narrow"), [Given(files[0])], tmp_path / "bundle", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_keeps_old_weights_is_found(bundles, files, tmp_path, monkeypatch):
    """The examples are made from the merged weights, by another way than Lite's: what was forgotten does not pass."""
    base = bundles("narrow")
    monkeypatch.setattr(ms_layout, "open_weights", lambda path: open_weights(base / path.parent.name / path.name))
    assert_one_line(r"prior_context batch 1 is wrong: .*the bundle is not published; .*bundle.failed keeps the bundle",
                    lambda: merge_bundle(base, [Given(files[1])], tmp_path / "bundle", progress=False))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]


def test_merges_of_before(bundles, files, tmp_path, monkeypatch):
    """Until version 5 a merge moved tensors out of weights.bin, and pointed graphs there."""
    index = {"a": StoredTensor(STORED, 64, (3,), "float16"), "b": StoredTensor("merged_1_weights.bin", 64, (2,)),
             "c": StoredTensor(STORED, 128, (5,))}
    places = {**index, "a": StoredTensor("weights.bin", 64, (3,)), "c": StoredTensor("weights.bin", 192, (5,))}
    assert wide_index(index) == places
    pointed = {"c.weight": StoredTensor("merged_1_weights.bin", 64, (2, 2))}
    monkeypatch.setattr(Bundle, "places", lambda *_: pointed)
    monkeypatch.setattr(merging, "Adapter", lambda given, _: SimpleNamespace(given=given, pairs={("prior", "c"): None}))
    assert_one_line("was merged by an older version of kandinsky-mindir: merge its LoRAs and these into the bundle that it was made of",
                    lambda: merge_bundle(bundles("narrow"), [Given(files[1])], tmp_path / "bundle"))


def test_merges_that_are_refused(merged, bundles, files, tmp_path, monkeypatch):
    base, given = bundles("narrow"), [Given(files[0])]
    for call, words in (
        (lambda: merge_bundle(base, given, base, overwrite=True), "is the bundle that is merged: choose another --output"),
        (lambda: merge_bundle(base, given, merged[0]), "exists: choose another --output, or say --overwrite"),
        (lambda: merge_bundle(base, given, tmp_path / "missing" / "bundle"), "does not exist: make it first"),
        (lambda: merge_bundle(base, given, tmp_path / "bundle", decoders=["depth"]), "has no decoder depth: it has text"),
        (lambda: merge_bundle(base, [], tmp_path / "bundle"), "nothing to merge: give at least one --lora"),
        (lambda: merge_bundle(tmp_path, given, tmp_path / "bundle"), "is not a bundle"),
        (lambda: add_sizes(merged[0], base.parent / "decoder", [(24, 24)]), "has LoRAs in its weights, which .* does not have"),
    ):
        assert_one_line(words, call)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10))
    assert_one_line("the merged weights take 0 MB and .* has 0 MB left", lambda: merge_bundle(base, given, tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


def test_what_layouts_reach():
    """Whole pages and their rest are one tensor; what lies before, behind and in other files is another."""
    tensors = {Place("weights.bin", offset): StoredTensor("weights.bin", offset, shape)
               for offset, shape in ((128, (8,)), (192, (8,)), (UNIT, (UNIT // 4 + 2,)))}
    stretches = [Stretch(0, "weights.bin", 64, 64), Stretch(64, "weights.bin", 128, 32), Stretch(96, "weights.bin", 160, 32),
                 Stretch(200, LITE_WEIGHTS, 192, 32), Stretch(3 * UNIT, "", 0, 8)]
    large = [Stretch(UNIT, "weights.bin", UNIT, UNIT), Stretch(2 * UNIT, "weights.bin", 2 * UNIT, 8)]
    assert in_layout(Layout(stretches, b""), tensors) == {Place("weights.bin", 128)}
    assert in_layout(Layout(large, b""), tensors) == in_layout(Layout(large[1:], b""), tensors) == {Place("weights.bin", UNIT)}


def test_tensors_with_the_same_bytes_are_told(tmp_path):
    """A layout means one of them by the place of another: which, only the converter knows."""
    arrays = [np.zeros(2048), np.zeros(2048), np.ones(2048), np.zeros(1024), np.r_[np.zeros(2047), 1]]
    index, end = {}, 0
    with open(tmp_path / "weights.bin", "wb") as file:
        for number, array in enumerate(arrays):
            index[str(number)] = StoredTensor("weights.bin", end, array.shape)
            end += file.write(array.astype("<f4").tobytes())
    for numbers, expected in (((0,), {0, 1}), ((1,), {0, 1}), ((2,), set()), ((2, 4), set()), ((0, 2), {0, 1})):
        changing = {Place.of(index[str(number)]): index[str(number)] for number in numbers}
        assert twins(tmp_path, index.values(), changing) == {Place.of(index[str(number)]) for number in expected}


def test_other_decoders_are_said_to_stay_as_they_are(bundles, files, tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    monkeypatch.setattr(merging, "staged_folder", stop)  # what is said is said before the work
    with pytest.warns(UserWarning, match="texts alone: inpaint and depth stay as they are, unless you say --decoder text --decoder inpaint"):
        with pytest.raises(Enough):
            merge_bundle(bundles("family"), [Given.parse(str(files[0]))], tmp_path / "merged")


@pytest.mark.slow
def test_a_style_for_all_decoders(bundles, files, pairs, tmp_path):
    """Each UNet's own weight and the same sum; verified by the merge itself."""
    found = merge_bundle(bundles("family"), [Given(files[0], SCALE)], tmp_path / "bundle", decoders=["text", "inpaint", "depth"],
                         progress=False)
    assert found.converted == []
    (base, bundle), (name, (down, up)) = (Bundle(path) for path in (bundles("family"), tmp_path / "bundle")), next(iter(pairs["unet"].items()))
    for part in ("unet", "inpaint_unet", "controlnet_unet"):
        old, new = (read_tensor(each.path / part, each.places(part)[f"{name}.weight"]) for each in (base, bundle))
        expected = old.astype(np.float64) + SCALE * (up.double() @ down.double()).numpy()
        assert np.array_equal(new, expected.astype(np.float32)) and not np.array_equal(new, old), part


def test_another_reader_finds_the_same(merged):
    """The one that was written from FORMAT.md: every weight, and the examples on the inputs of before."""
    reader, bundle = Reader(merged[0]), Bundle(merged[0])
    assert reader.manifest["format"] == 6
    for part in FOLDERS:
        assert reader.weights(part) == open_weights(merged[0] / part / "weights.bin")[:].tobytes()
    for graph, data in zip(bundle.manifest.graphs, reader.manifest["graphs"], strict=True):
        inputs, _ = reader.example(data)
        assert {name: array.tobytes() for name, array in inputs.items()} == {
            name: array.tobytes() for name, array in read_example(bundle, graph).inputs.items()}
