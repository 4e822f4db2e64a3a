"""Names of parametrized rows that are the same in every process, as test processes side by side need them."""

import re


def row_name(value) -> str:
    """The repr without addresses."""
    return re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
