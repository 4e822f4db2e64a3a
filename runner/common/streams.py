"""The standard streams of the command: they take any text, and nobody minds if one is closed or its reader goes away."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import escaped, is_byte

BROKEN_PIPE = 141  # exit status of a program whose reader went away: 128 + SIGPIPE
ESCAPES, BYTES = "kandinsky-mindir.escapes", "kandinsky-mindir.bytes"  # names of our handlers of encoding errors


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside the block, standard output and standard error are there and take any text.

    A character that the encoding of a stream lacks is written as an escape. A byte of a file name that is not UTF-8 is
    written as it is, for scripts that read names, but escaped on a terminal.
    """
    _open_closed()
    codecs.register_error(ESCAPES, lambda error: (_escapes(error).encode("ascii"), error.end))  # type: ignore[attr-defined, arg-type]
    codecs.register_error(BYTES, lambda error: (_bytes(error), error.end))  # type: ignore[attr-defined, arg-type]
    before = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            before.append((stream, stream.errors))
            stream.reconfigure(errors=ESCAPES if stream.isatty() else BYTES)
    try:
        yield
    finally:
        for stream, errors in before:
            with suppress(OSError, ValueError):  # ValueError: it was closed meanwhile
                stream.reconfigure(errors=errors)


def flush() -> None:
    """Write what is buffered. OSError if that fails."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def reader_is_gone() -> bool:
    """Whether standard output or standard error is a pipe that nobody reads any more."""
    return any(_is_broken(stream) for stream in (sys.stdout, sys.stderr))


def failure() -> OSError | None:
    """Why standard output or standard error cannot be written; None if both can."""
    try:
        flush()
    except OSError as error:
        return error
    return None


def discard() -> None:
    """Throw away what a stream that cannot be written still buffers: Python would complain of it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _open_closed() -> None:
    """Open the null device in place of standard streams that are closed.

    Else the next file that is opened takes the number of one, and what a library prints goes into that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # by the processes that run models
    os.close(descriptor)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))


def _is_broken(stream) -> bool:
    with suppress(OSError, ValueError):  # it has no number
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _escapes(error: UnicodeEncodeError) -> str:
    return "".join(escaped(character) for character in error.object[error.start:error.end])


def _bytes(error: UnicodeEncodeError) -> bytes:
    return b"".join(bytes([ord(character) & 0xFF]) if is_byte(character) else escaped(character).encode("ascii")
                    for character in error.object[error.start:error.end])
