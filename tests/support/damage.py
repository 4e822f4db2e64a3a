"""Ways to damage a checkpoint, and what the error must look like."""

import json

import pytest
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME, sealed
from kandinsky_mindir.runner.common.errors import UserError


def edit_json(path, change):
    """`change` alters the parsed content; a manifest is sealed anew."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(sealed(content) if path.name == FILE_NAME else json.dumps(content))


def edit_header(path, change):
    """Rewrite a safetensors header, data untouched."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8:end]))
    header = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


def edit_entry(**fields):
    """A header change: replace fields of the tensor that lies first in the file."""
    def change(header):
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        first = min(tensors, key=lambda name: tensors[name]["data_offsets"])
        header[first].update(fields)
        return header
    return change


def cut(path, keep):
    """Keep so many bytes, or with a negative number drop so many from the end."""
    path.write_bytes(path.read_bytes()[:keep])


def assert_one_line(message, call):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
