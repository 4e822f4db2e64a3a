"""What cache_costs.py prints holds in outline on the trained checkpoint."""

import cache_costs
import pytest
from psnr import psnr
from sampler_choice import Emoji


def test_steps_of_the_real_unet():
    assert cache_costs.real_steps(20, 1) == 20 and cache_costs.real_steps(20, 3) == pytest.approx(7 + 13 * cache_costs.SHARE)


@pytest.mark.slow
def test_fewer_whole_steps_are_farther_away(bundles):
    """12 steps of which half are whole are nearer than the seven whole ones that take the same work."""
    emoji = Emoji(bundles("micro-family"), 8, None)
    limit = emoji.draw("dpmpp-2m-karras:200")
    asked = (("dpmpp-2m-exponential:12", 1), ("dpmpp-2m-exponential:12", 2), ("dpmpp-2m-karras:7", 1))
    all_whole, half, seven = (psnr(emoji.draw(candidate, cache_interval=interval), limit) for candidate, interval in asked)
    assert all_whole > half > seven
