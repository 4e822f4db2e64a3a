"""Any text becomes one line that is safe to print."""

import os

import pytest
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.common.errors import one_line


@pytest.mark.parametrize("text, line", [
    ("a red cat", "a red cat"),
    ("кот 猫 🐈", "кот 猫 🐈"),
    ("two\nlines", "two lines"),
    ("  one \r\n\n two\x0b", "one two"),
    ("a  b", "a  b"),  # two spaces of a name stay two
    ("a\tb", "a\\tb"),
    ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
    ("\x9b31m", "\\x9b31m"),  # the same sequence in one character
    ("cat\u202egnp.exe", "cat\\u202egnp.exe"),  # right-to-left override
    (os.fsdecode(b"\xea\xee\xf2"), "\\xea\\xee\\xf2"),
    ("\ud800", "\\ud800"),
    (ValueError("a\nb"), "a b"),
    ("", ""),
])
def test_text_as_one_line(text, line):
    assert one_line(text) == line
    assert str(UserError(text)) == line


def test_bytes_of_names_are_kept_for_streams_that_write_them():
    assert one_line(os.fsdecode(b"\xea\n\x1b"), keep_bytes=True) == os.fsdecode(b"\xea") + " \\x1b"
