"""Whether what the exporter needs beyond the runner is installed."""

from importlib.util import find_spec

from ..runner.common.errors import UserError


def require_exporter() -> None:
    """UserError, saying how to install it, if MindSpore or a library that reads checkpoints is missing."""
    missing = [name for name in ("mindspore", "transformers", "flatbuffers", "safetensors") if find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}: run pip install '.[export]' in a clone of kandinsky-mindir")
