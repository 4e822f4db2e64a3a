"""Random sources: torch's generator to the last bit, NumPy's passed through, one question for each tensor."""

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.diffusion import noise
from kandinsky_mindir.runner.diffusion.torch_generator import TorchGenerator, _log, _sin_cos

# torch takes the C library's logarithm and sine where it has no AVX2: equal bits are promised for AVX2 alone.
needs_avx2 = pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
                                reason="torch does not use AVX2 on this processor")


def torch_noise(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator).numpy() for size in sizes]


def assert_same_bits(ours, theirs):
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


@needs_avx2
@pytest.mark.parametrize("seed", range(4))
def test_a_million_numbers_of_torch(seed):
    assert_same_bits(TorchGenerator(seed).standard_normal(1 << 20), torch_noise(seed, 1 << 20)[0])


@needs_avx2
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(-2**63, 2**64 - 1), sizes=st.lists(st.integers(0, 70), max_size=12))
def test_draws_of_mixed_sizes_keep_torchs_state(seed, sizes):
    """Below 16 numbers, above, not a multiple of 16, and the number left over from an odd draw, in any order."""
    generator = TorchGenerator(seed)
    for size, expected in zip(sizes, torch_noise(seed, *sizes)):
        assert_same_bits(generator.standard_normal(size), expected)


@needs_avx2
def test_the_shapes_of_a_run():
    shapes = [(1, 1280), (2, 1280), (1, 4, 64, 64), (3, 4, 96, 64), (), (0, 4)]
    generator = TorchGenerator(7)
    for shape, expected in zip(shapes, torch_noise(7, *shapes)):
        assert_same_bits(generator.standard_normal(shape), expected)


def test_known_values_of_torch():
    """The first of torch.manual_seed(0); torch.randn(3), without torch: print(x.double().tolist())."""
    values = TorchGenerator(0).standard_normal(3)
    assert values.astype(float).tolist() == [1.5409960746765137, -0.293428897857666, -2.1787893772125244]


def test_logarithm_sine_and_cosine_are_what_they_are_called():
    """Bits alone would not tell a wrong function from a wrong reference. Cephes' float functions are good to an error
    of 2e-7 relative for the logarithm and 1.2e-7 absolute for sine and cosine (two and one units in the last place)."""
    x = np.arange(1, 2**24 + 1, 997, dtype=np.float32) * np.float32(2**-24)
    np.testing.assert_allclose(_log(x), np.log(x.astype(float)), rtol=2.4e-7)
    angle = np.float32(2 * np.pi) * x
    for ours, exact in zip(_sin_cos(angle), (np.sin(angle.astype(float)), np.cos(angle.astype(float)))):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1.2e-7)


@pytest.mark.parametrize("seed, said", [(2**64, "18446744073709551616"), (-2**63 - 1, "-9223372036854775809"),
                                        (1.5, "1.5"), ("0", "'0'"), (None, "None")])
def test_seeds_that_torch_refuses_are_refused(seed, said):
    with pytest.raises(UserError, match=said):
        TorchGenerator(seed)


def test_numpys_generators_pass_through():
    for make in (np.random.default_rng, np.random.RandomState):
        expected = make(3).standard_normal((2, 5)).astype(np.float32)
        assert_same_bits(noise.draw(noise.source(make(3)), (2, 5)), expected)


def test_an_int_is_mindones_seed():
    """mindone's users write Generator(PCG64(seed)), whose float64 normals are cast."""
    expected = np.random.Generator(np.random.PCG64(11)).standard_normal((1, 4, 8, 8)).astype(np.float32)
    for seed in (11, np.int64(11)):
        assert_same_bits(noise.draw(noise.source(seed), (1, 4, 8, 8)), expected)


def test_none_is_fresh_each_time():
    first, second = (noise.draw(noise.source(), (8,)) for _ in range(2))
    assert (first != second).any()


@needs_avx2
def test_generators_by_name():
    assert_same_bits(noise.from_seed(5, "torch").standard_normal(20), torch_noise(5, 20)[0])
    assert_same_bits(noise.from_seed(5, "numpy-legacy").standard_normal(20), np.random.RandomState(5).randn(20))
    assert_same_bits(noise.from_seed(5).standard_normal(20), np.random.default_rng(5).standard_normal(20))


def test_each_tensor_is_one_question_in_its_own_shape():
    asked = []

    class Source:
        def standard_normal(self, size):
            asked.append(size)
            return np.zeros(size)

    source = noise.source(Source())
    assert noise.draw(source, [2, 3]).dtype == np.float32
    noise.draw(source, (4,))
    assert asked == [(2, 3), (4,)]


@needs_avx2
@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_of_generators_is_one_for_each_picture(rows):
    shape = (rows, 4, 8, 8)
    theirs = randn_tensor(shape, generator=[torch.Generator().manual_seed(seed) for seed in range(rows)])
    assert_same_bits(noise.draw(noise.source([TorchGenerator(seed) for seed in range(rows)]), shape), theirs.numpy())


def test_a_generator_of_torch_draws_as_it_does_there():
    """The object itself goes on, from whatever state it is in, whatever type torch makes by itself."""
    own, others = (torch.Generator().manual_seed(7) for _ in range(2))
    assert_same_bits(noise.draw(noise.source(own), (2, 3, 5)), torch.randn((2, 3, 5), generator=others).numpy())
    torch.set_default_dtype(torch.float64)
    try:
        assert_same_bits(noise.draw(noise.source([own, own]), (2, 9)),
                         np.concatenate([torch.randn((1, 9), generator=others, dtype=torch.float32) for _ in range(2)]))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(own.get_state(), others.get_state())


@pytest.mark.parametrize("generator, said", [
    ("seed", "'seed'"), (1.0, "1.0"), (-1, "-1"), (True, "True"), ([], "empty list"), ([1, "x"], "'x'"),
    (torch.tensor(3), "torch object, and no generator"),
])
def test_what_is_not_a_generator_is_refused(generator, said):
    with pytest.raises(UserError, match=said):
        noise.source(generator)


@pytest.mark.parametrize("kind, seed, said", [("mersenne", 0, "mersenne"), ("numpy-legacy", 2**32, "numpy-legacy"),
                                              ("numpy", -1, "-1"), ("torch", 2**64, str(2**64))])
def test_kinds_and_seeds_that_do_not_go_together_are_refused(kind, seed, said):
    with pytest.raises(UserError, match=said):
        noise.from_seed(seed, kind)


@pytest.mark.parametrize("answer", [np.zeros((2, 2)), np.zeros((2, 3), int), np.zeros((2, 3), complex), [[0.0], [1.0]]])
def test_wrong_answers_of_a_source_are_refused(answer):
    class Source:
        def standard_normal(self, size):
            return answer

    with pytest.raises(UserError, match="Source"):
        noise.draw(noise.source(Source()), (2, 3))


def test_a_list_of_the_wrong_length_is_refused():
    with pytest.raises(UserError, match="2 generators for a batch of 3"):
        noise.draw(noise.source([1, 2]), (3, 4))
