"""The C++ program, and the parts of its library that need no bundle as a program that the tests of this folder call.

With NATIVE_SANITIZED=1 in the environment both are compiled with the address and undefined-behavior sanitizers; Python cannot
load the library then, so leave test_native_library.py out.
"""

import os

import pytest
from native_leaves import SANITIZED, Leaves, compiled, require_libraries
from native_program import Program, built

WITH_SANITIZERS = bool(os.environ.get("NATIVE_SANITIZED"))


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
    program = Leaves(compiled("leaves", native_cache, **(SANITIZED if WITH_SANITIZERS else {})))
    yield program
    program.close()


@pytest.fixture(scope="session")
def kandinsky(kept, engine):
    """The C++ program."""
    options = ["-DKANDINSKY_SANITIZE=address,undefined"] if WITH_SANITIZERS else []
    return Program(built(kept, *options), engine)
