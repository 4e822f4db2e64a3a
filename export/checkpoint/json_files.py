"""JSON files that come from outside: read them, or say in one line what is wrong with them."""

import json
from pathlib import Path

from ...runner.common.errors import UserError


def read_json(path) -> dict:
    """The object that a JSON file holds. Raises UserError naming the file."""
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object")
    return content


def one_line(error) -> str:
    return " ".join(str(error).split())
