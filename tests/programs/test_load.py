"""A few seconds of tests/programs/load.py: every picture is its own seed's, and the line keeps its bound."""

import load
from served import served


def test_smoke(bundles):
    with served(bundles("narrow"), queue=2) as server:
        found = load.load(server.host, 1, 8, 2)
    assert not found.faults, found.faults[:5]
    assert found.counts[200] > 0 and found.counts[429] > 0 and found.longest <= 2 and found.counts["disturbed"]
