"""The C++ library's parts withstand a little of what tests/programs/fuzz_native.py does for hours."""

import fuzz_native
import pytest
from native_leaves import require_libraries


@pytest.mark.slow
def test_fuzz_native(pytestconfig, tmp_path):
    require_libraries()
    cache = pytestconfig.cache.mkdir("native")
    assert fuzz_native.main(["--seconds", "3", "--output", str(tmp_path), "--cache", str(cache)]) == 0
