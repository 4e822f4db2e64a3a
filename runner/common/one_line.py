"""Text as one line that is safe to print: no line breaks, no control characters, no bytes that are not UTF-8."""


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
