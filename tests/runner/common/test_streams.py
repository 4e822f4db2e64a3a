"""Standard streams take any text, whatever their encoding, and do not mind being closed."""

import io
import os
import subprocess
import sys

import pytest
from kandinsky_mindir.runner.common.streams import standard_streams

NAME = os.fsdecode(b"\xea") + "é"


class Terminal(io.BytesIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("raw, encoding, written", [
    (io.BytesIO, "utf-8", b"\xea\xc3\xa9"), (io.BytesIO, "ascii", b"\xea\\xe9"), (io.BytesIO, "latin-1", b"\xea\xe9"),
    (Terminal, "utf-8", b"\\xea\xc3\xa9"), (Terminal, "ascii", b"\\xea\\xe9"),
])
def test_what_an_encoding_lacks_is_escaped(raw, encoding, written, monkeypatch):
    stream = io.TextIOWrapper(raw(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with standard_streams():
        print(NAME, end="", flush=True)
    assert stream.buffer.getvalue() == written
    with pytest.raises(UnicodeEncodeError):
        print(os.fsdecode(b"\xea"), flush=True)  # as before the block


CLOSED = """
import os, sys
from kandinsky_mindir.runner.common.streams import standard_streams
with standard_streams():
    file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
    print("to nobody")
    print("to nobody", file=sys.stderr)
    os.system("echo to nobody")
os.write(file, str(file).encode())
"""


def test_a_closed_stream_s_number_goes_to_no_file(tmp_path):
    """Else what is printed would go into the next file that is opened."""
    path = tmp_path / "file"
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", CLOSED, path]
    subprocess.run(command, check=True, timeout=60)
    assert path.read_text().isdigit() and int(path.read_text()) > 2
