"""The program balancer.py: two replicas behind HAProxy, of which one is killed."""

import shutil

import balancer
import pytest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no HAProxy: apt-get install haproxy")
def test_a_replica_is_killed(bundles, tmp_path, capsys):
    balancer.run(bundles("narrow"), callers=4, pictures=20, steps=3, folder=tmp_path)
    printed = capsys.readouterr().out
    assert "20 pictures, each right for its seed" in printed and "one replica killed" in printed
