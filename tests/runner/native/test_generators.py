"""Noise of the C++ library is Python's, to the last bit."""

import hashlib

import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.diffusion import noise

SEEDS = ["0", "1", "7", "42", "4294967295", "4294967296", "18446744073709551615", "340282366920938463463374607431768211455",
         "1" + "0" * 60]
SIZES = (4 * 16 * 16, 1, 3, 17, 16, 15, 100003)  # torch draws by sixteens, and what is less than that in pairs


def assert_equal(leaves, rng, seed, sizes):
    source = noise.from_seed(int(seed), rng)
    for size, drawn in zip(sizes, leaves.call("draw", rng, seed, *sizes)):
        np.testing.assert_array_equal(np.frombuffer(drawn, np.uint32), noise.draw(source, (size,)).view(np.uint32))


@pytest.mark.parametrize("seed", SEEDS)
def test_numpy(leaves, seed):
    assert_equal(leaves, "numpy", seed, SIZES)


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_numpy_legacy(leaves, seed):
    assert_equal(leaves, "numpy-legacy", seed, SIZES)


@pytest.mark.parametrize("seed", [*SEEDS[:7], "-1", "-9223372036854775808"])
def test_torch(leaves, seed):
    assert_equal(leaves, "torch", seed, SIZES)


def test_the_rare_ways_of_the_ziggurat(leaves):
    """Of three million draws 22,000 end in a wedge and 800 in the tail, beyond the lowest layer."""
    drawn = np.frombuffer(leaves.call("draw", "numpy", 5, 3_000_000)[0], np.float32)
    expected = np.random.default_rng(5).standard_normal(3_000_000).astype(np.float32)
    assert np.count_nonzero(np.abs(expected) > 3.6541528) > 500
    assert hashlib.sha256(drawn).digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("rng, seed", [("numpy", "-1"), ("numpy-legacy", "-1"), ("numpy-legacy", "4294967296"),
                                       ("torch", "18446744073709551616"), ("torch", "-9223372036854775809"), ("dice", "1")])
def test_seeds_that_do_not_suit(leaves, rng, seed):
    with pytest.raises(UserError) as theirs:
        noise.from_seed(int(seed), rng)
    with pytest.raises(UserError) as ours:
        leaves.call("draw", rng, seed, 1)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("seed", ["", "-", "1.5", "0x10", " 1", "1 ", "٣", "9" * 5000])
def test_a_seed_is_digits(leaves, seed):
    with pytest.raises(UserError, match="seed must be an integer, not "):
        leaves.call("draw", "numpy", seed, 1)
