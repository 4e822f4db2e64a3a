"""Weights stored in narrower types: what is read of them is what graphs were made over."""

from functools import partial

import numpy as np
import pytest
from damage import assert_one_line
from kandinsky_mindir.export.checkpoint.tensor_names import Weight
from kandinsky_mindir.export.contents.stored_writer import SMALLEST_INT8, StoredWriter, encode, quantized
from kandinsky_mindir.export.contents.weights import WeightsWriter
from kandinsky_mindir.models import winograd
from kandinsky_mindir.runner.bundle.stored.wide_file import LARGE, WideWeights, open_weights
from kandinsky_mindir.runner.bundle.tensor_index import GROUP, NAME, STORED, WEIGHTS, StoredTensor, read_index, write_index
from kandinsky_mindir.runner.common.errors import UserError

SHAPES = {"bias": (7,), "matrix": (SMALLEST_INT8 // 70, 70), "large": (LARGE // 4 // 256 + 3, 256), "last": (3, 5)}
COMBINATIONS = {"plain": winograd.PLAIN, "doubled": winograd.DOUBLED}


def half(*shape, seed=0):
    """Random values that float16 holds exactly, some of them so small that they have no exponent there."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(shape) * np.exp2(random.integers(-20, 3, shape))
    return values.astype(np.float16).astype(np.float32)


def weights_of(arrays, kernels, dtype):
    """As tensor_names.weights gives them: `arrays` themselves, and of each of `kernels` the products of Winograd's transform."""
    for name, array in arrays.items():
        yield Weight(name, dtype, partial(np.copy, array), partial(np.copy, array))
    for name, kernel in kernels.items():
        for kind, combinations in COMBINATIONS.items():
            for column in range(len(combinations)):
                yield Weight(f"{name}.{kind}_{column}", dtype, partial(winograd.filters(combinations, column), kernel),
                             partial(np.transpose, kernel, (2, 3, 0, 1)), name, winograd.taps(combinations, column))


def store(folder, weights, choice):
    with StoredWriter(folder, choice) as writer:
        for weight in weights:
            writer.write(weight)
    return writer.index


@pytest.fixture
def checkpoint():
    return {name: half(*shape, seed=seed) for seed, (name, shape) in enumerate(SHAPES.items())}, {"conv": half(70, 60, 3, 3)}


@pytest.mark.parametrize("choice", ["checkpoint", "float16", "float32"])
def test_a_float16_checkpoint_is_stored_bit_for_bit_and_gives_the_float32_file(tmp_path, checkpoint, choice):
    weights = list(weights_of(*checkpoint, "F16"))
    (tmp_path / "plain").mkdir()
    with WeightsWriter(tmp_path / "plain" / WEIGHTS) as plain:
        for weight in weights:
            plain.write(weight.name, weight.array())
    index = store(tmp_path, weights, choice)
    read = open_weights(tmp_path / WEIGHTS)
    assert isinstance(read, WideWeights) and read[:].tobytes() == (tmp_path / "plain" / WEIGHTS).read_bytes()
    assert index == plain.index
    stored, data = read_index(tmp_path / NAME), np.fromfile(tmp_path / STORED, np.uint8)
    dtype, size = ("float32", 4) if choice == "float32" else ("float16", 2)
    for name, array in checkpoint[0].items():
        place = stored[name]
        content = data[place.offset : place.offset + place.length]
        assert (place.dtype, content.tobytes()) == (dtype, array.astype(f"<f{size}").tobytes()), name
    kernels = {(tensor.offset, tensor.dtype) for name, tensor in stored.items() if name.startswith("conv.")}
    assert len(kernels) == 1 and data.size < size * sum(array.size for part in checkpoint for array in part.values()) + 64 * 6


@pytest.mark.parametrize("choice", ["checkpoint", "float32", "float16", "bfloat16", "int8"])
def test_any_part_of_what_is_read_is_that_of_the_file(tmp_path, checkpoint, choice):
    index = store(tmp_path, list(weights_of(*checkpoint, "BF16")), choice)
    read = open_weights(tmp_path / WEIGHTS)
    wide = read[:].tobytes()
    assert len(wide) == read.size
    ends = sorted({0, 1, 63, 64, 65, len(wide), *(place.offset + skip for place in index.values() for skip in (-1, 0, 4, 70_002))})
    for start in ends:
        for stop in ends[::5]:
            assert read[start:stop].tobytes() == wide[start:stop], (start, stop)
    with open(tmp_path / "again", "wb") as file:
        read.write(file)
    assert (tmp_path / "again").read_bytes() == wide


def test_what_a_merge_has_moved_keeps_its_place(tmp_path, checkpoint):
    store(tmp_path, list(weights_of(*checkpoint, "F16")), "checkpoint")
    before = open_weights(tmp_path / WEIGHTS)[:]
    index = read_index(tmp_path / NAME)
    place = StoredTensor(WEIGHTS, 65_536, SHAPES["large"])  # the first multiple of a page behind two small tensors
    write_index(tmp_path / NAME, {**index, "large": StoredTensor("merged_1_weights.bin", 64, SHAPES["large"])})
    after = open_weights(tmp_path / WEIGHTS)[:]
    assert before[place.offset : place.offset + place.length].any()
    assert not after[place.offset : place.offset + place.length].any()
    before[place.offset : place.offset + place.length] = 0
    np.testing.assert_array_equal(after, before)


def test_what_float16_does_not_hold():
    third, huge = np.full((4, 4), 1 / 3, np.float32), np.full((4, 4), 1e5, np.float32)
    assert encode(third, "float16").dtype == encode(third, "int8").dtype == "float16"
    assert encode(third[0], "float16").dtype == encode(third[0], "bfloat16").dtype == encode(third[0], "int8").dtype == "float32"
    assert encode(huge, "float16").dtype == "float32" and encode(huge, "bfloat16").dtype == "bfloat16"
    assert encode(np.float32([1, -0.0, 6e-8 / 1.0066666]), "float16").dtype == "float32"
    assert quantized(np.full((4, 4), 1e8, np.float32)).dtype == "float32"


@pytest.mark.parametrize("shape, planes", [((33, 200), 1), ((5, 3, 3, 64), 1), ((3, 3, 4, 40), 9)])
def test_int8_is_off_by_half_a_step_of_its_group(shape, planes):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    array[..., -1, :] = 0
    first = quantized(array, planes)
    rows, values = first.scales.shape[0], array.size // first.scales.shape[0]
    assert rows == (36 if planes > 1 else shape[0])
    scales = np.repeat(first.scales.astype(np.float64), GROUP, axis=1)[:, :values].reshape(array.shape)
    # A step is the largest value of its group / 127, rounded up to eleven bits.
    assert (np.abs(first.values * scales - array) <= 0.5001 * scales).all() and not first.values[..., -1, :].any()
    largest = np.abs(array.reshape(rows, -1)[:, :GROUP]).max(axis=1) / 127
    assert (first.scales[:, 0] >= largest).all() and (first.scales[:, 0] <= largest * (1 + 2**-10)).all()
    exact = first.values * scales
    assert np.array_equal(first.values * scales.astype(np.float32), exact)


def test_a_checkpoint_that_was_never_filled_is_refused(tmp_path):
    zeros = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    assert_one_line("all its weights are zero", lambda: store(tmp_path, list(weights_of(zeros, {}, "F16")), "checkpoint"))


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / STORED).write_bytes((folder / STORED).read_bytes()[:-1000]),
    lambda folder: (folder / NAME).write_text((folder / NAME).read_text().replace('"int8"', '"float16"')),
    lambda folder: (folder / NAME).write_text((folder / NAME).read_text().replace('"scales"', '"scaled"')),
    lambda folder: (folder / NAME).write_text((folder / NAME).read_text().replace('"taps":[[', '"taps":[[1.0],[')),
    lambda folder: (folder / NAME).unlink(),
])
def test_what_does_not_fit_together_is_one_line(tmp_path, checkpoint, damage):
    store(tmp_path, list(weights_of(*checkpoint, "F16")), "int8")
    damage(tmp_path)
    assert_one_line("export the bundle again", lambda: open_weights(tmp_path / WEIGHTS))


def test_a_stretch_is_of_one_tensor(tmp_path, checkpoint):
    index = store(tmp_path, list(weights_of(*checkpoint, "F16")), "checkpoint")
    read = open_weights(tmp_path / WEIGHTS)
    large, last = index["large"], index["last"]
    assert read.source(large.offset + 65_536, 4096).first == 65_536 // 4
    for start, length in ((0, 64), (large.offset, large.length + 4), (large.offset + 2, 4), (last.offset, 6)):
        assert read.source(start, length) is None
    with pytest.raises(UserError):
        open_weights(tmp_path / "none.bin")
