"""scale.py against what can be reckoned by hand, and queueing theory."""

import pytest
import scale

TABLE = """
| case | system | seconds | to the best peer |
| --- | --- | --- | --- |
| text_encoder | ours | 1 | 1.22 |
| prior batch 2 | ours | 0.5 | 0.10 |
| movq 512x512 | ours | 4 | 0.64 |
| unet 512x512 batch 2 | ours | 10.0 | 0.92 |
| unet 768x768 batch 2 | ours | 20 | 0.80 |
"""


def test_a_picture_takes_its_parts():
    found = scale.measured(TABLE)
    assert scale.seconds_of_a_picture(found, "ours", 512, 4, 3) == 1 + 4 * 0.5 + 3 * 10 + 4
    assert scale.seconds_of_a_picture(found, "ours", 768, 4, 3) == 1 + 4 * 0.5 + 3 * 20 + 4 * 2.25


def test_the_tables_have_what_is_needed():
    found = scale.measured(scale.TABLES.read_text())
    for side in scale.SIZES:
        for system in scale.SYSTEMS:
            assert 0 < scale.seconds_of_a_picture(found, system, side, 25, 20) < 3600


def test_a_queue_without_a_bound_waits_as_theory_says():
    """The mean wait of one server with constant service, M/D/1: load / (2 * (1 - load)) services, Pollaczek and Khinchine's
    formula. 20,000 callers whose waits hang together over some ten callers: an error of 0.03 is three of its deviations."""
    refused, mean, _ = scale.overload(1.0, 0.5, 10**9)
    assert refused == 0 and mean == pytest.approx(0.5, abs=0.03)


def test_twice_the_load_is_refused_by_half_and_waits_no_longer_than_the_queue():
    """The server is never idle but at the start: it takes half of the callers, and the rest is refused."""
    refused, mean, longest = scale.overload(100.0, 2.0, 16)
    assert refused == pytest.approx(0.5, abs=0.015)  # four deviations of the callers' number: 4 * sqrt(20000) / 40000
    assert 15 * 100 < mean < longest <= 17 * 100
