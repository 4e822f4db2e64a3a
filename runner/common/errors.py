"""The one error that users see, and text as one line that is safe to print."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input or a bad environment: one line that says what is wrong and what to do.

    The command line prints it and exits with status 2; callers of the API can catch it as a ValueError. The message is
    safe to print anywhere: what a file name or a server's answer holds of control characters is escaped.
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


def is_of_system(error: BaseException) -> bool:
    """Whether an exception tells of a system call that failed.

    A TimeoutError is an OSError, too: one that a signal handler raises is the caller's own, and must reach it.
    """
    return isinstance(error, OSError) and error.errno is not None


def one_line(text: object, keep_bytes: bool = False) -> str:
    """`str(text)` as one line. Lines are joined by spaces.

    A character that a terminal would act on, or could not show, becomes its escape: ``\\x1b``. A byte of a file name that
    is not UTF-8, which Python keeps as a surrogate, becomes one, too, unless `keep_bytes`: the stream takes care of it.
    """
    return "".join(
        character if character.isprintable() or (keep_bytes and is_byte(character)) else escaped(character)
        for character in " ".join(line.strip() for line in str(text).splitlines() if line.strip())
    )


def is_byte(character: str) -> bool:
    """Whether Python's surrogateescape made the character of a byte that is not UTF-8 (PEP 383)."""
    return "\udc80" <= character <= "\udcff"


def escaped(character: str) -> str:
    """The escape of a character as Python writes it, and of a byte as a shell writes it in $'...'."""
    if is_byte(character):
        return f"\\x{ord(character) & 0xFF:02x}"
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else repr(character)[1:-1]
