"""A short run of balancer.py, on ports that are free."""

import shutil
import socket
from contextlib import ExitStack

import balancer
import pytest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_two_replicas_of_which_one_is_killed(bundles, tmp_path, capsys):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in balancer.PORTS]
        ports = tuple(each.getsockname()[1] for each in sockets)
    balancer.run(bundles("narrow"), callers=3, pictures=30, steps=3, folder=tmp_path, ports=ports)
    said = capsys.readouterr().out
    assert said.startswith("30 pictures, each right for its seed") and "4 jobs, found in each" in said and "one replica killed" in said
