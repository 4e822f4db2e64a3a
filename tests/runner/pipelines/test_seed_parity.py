"""The same seed, the same picture: a few cells of parity_table.py, which prints them all."""

import parity_table
import pytest
from kandinsky_mindir.runner import TorchGenerator
from psnr import LEAST_PSNR


@pytest.fixture(scope="module")
def ours(bundles):
    return parity_table.open_bundle(bundles("micro"))


@pytest.mark.parametrize(
    "pipeline, sampler, seed",
    (("text-to-image", "ddpm", 0), ("text-to-image", "dpmpp-2m", 2**40 + 3),
     ("interpolation", "ddim", 1), ("interpolation", "dpmpp-2m-sde", 4)),
)
def test_the_same_seed_makes_the_same_picture(pipeline, sampler, seed, ours):
    found = parity_table.compare(ours, pipeline, sampler, seed)
    assert found >= LEAST_PSNR, f"{found:.1f} dB"


def test_another_seed_makes_another_picture(ours, monkeypatch):
    """The comparison tells seeds apart, though the checkpoint knows its few pictures by heart."""
    monkeypatch.setattr(parity_table, "TorchGenerator", lambda seed: TorchGenerator(seed + 1))
    assert parity_table.compare(ours, "text-to-image", "lcm", 0) < LEAST_PSNR
