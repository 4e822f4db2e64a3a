"""The C++ program, and the parts of its library that need no bundle as a program that the tests of this folder call.

With NATIVE_SANITIZED=1 in the environment the latter is compiled with the address and undefined-behavior sanitizers.
"""

import os

import pytest
from native_leaves import SANITIZED, Leaves, compiled, require_libraries
from native_program import Program, built


def pytest_collection_modifyitems(items):
    """What needs compiled sources is slow: all of them take two minutes of a processor."""
    for item in items:
        if {"kandinsky", "leaves"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def native_cache(pytestconfig):
    """Where compiled objects are kept between runs."""
    require_libraries()
    return pytestconfig.cache.mkdir("native")


@pytest.fixture(scope="session")
def leaves(native_cache):
    program = Leaves(compiled("leaves", native_cache, **(SANITIZED if os.environ.get("NATIVE_SANITIZED") else {})))
    yield program
    program.close()


@pytest.fixture(scope="session")
def kandinsky(kept, engine):
    """The C++ program."""
    return Program(built(kept), engine)
