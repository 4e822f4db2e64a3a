"""What tests of nodes of our own share."""

import our_nodes
import pytest


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The program of our_nodes.count."""
    return our_nodes.build(tmp_path_factory.mktemp("program"))
