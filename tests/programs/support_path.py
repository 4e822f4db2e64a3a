"""Programs that import this find the modules of tests/support, as pytest does by pyproject.toml."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
