"""Writes runner/native/inputs/unicode_tables.h: which characters are letters, numbers and blanks, and what they are in lower
case, to the `tokenizers` library that is installed. Run it when tests/runner/native/test_tokenizer.py says that they have changed."""

from itertools import groupby
from pathlib import Path

from tokenizers import Regex, __version__, normalizers, pre_tokenizers

HEADER = Path(__file__).resolve().parents[2] / "runner" / "native" / "inputs" / "unicode_tables.h"
CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
CLASSES = {"kLetters": r"\p{L}+", "kNumbers": r"\p{N}+", "kSpaces": r"\s+"}
WIDTH = 120


def members(regex):
    """Code points that a class of the library's regular expressions has."""
    split = pre_tokenizers.Split(Regex(regex), behavior="removed", invert=True)
    return sorted({ord(character) for piece, _ in split.pre_tokenize_str("".join(CHARACTERS)) for character in piece})


def ranges(codes):
    """(first, last) of each run of neighbors."""
    runs = [[code for _, code in run] for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0])]
    return [(run[0], run[-1]) for run in runs]


def lower_cases():
    """(character, its lower case) where they differ, for those that have one character."""
    lower = normalizers.Lowercase()
    pairs = [(ord(character), lower.normalize_str(character)) for character in CHARACTERS]
    assert [code for code, text in pairs if len(text) > 1] == [0x130], "LowerCase of unicode.cc knows this one alone"
    return [(code, ord(text)) for code, text in pairs if len(text) == 1 and ord(text) != code]


def case_ranges(pairs):
    """(first, last, stride, distance): each stride-th character from first to last has its lower case that far away."""
    rows, pairs = [], list(pairs)
    while pairs:
        first, distance = pairs[0][0], pairs[0][1] - pairs[0][0]
        found = {}
        for stride in (1, 2):
            last = first
            while (last + stride, last + stride + distance) in set(pairs[:200]):
                last += stride
            found[stride] = last
        stride = 2 if (found[2] - first) // 2 > found[1] - first else 1
        last = found[stride]
        rows.append((first, last, stride, distance))
        taken = set(range(first, last + 1, stride))
        pairs = [pair for pair in pairs if pair[0] not in taken]
    return rows


def table(head, rows):
    lines, line = [], "   "
    for row in rows:
        text = " {" + ", ".join(str(item) if item < 10 else f"{item:#x}" for item in row) + "},"
        if len(line + text) > WIDTH:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join([f"constexpr {head}[] = {{", *lines, line, "};", ""])


def main():
    parts = [f"""// Characters as tokenizers {__version__} sees them; written by tests/programs/unicode_tables.py.
#pragma once

#include <cstdint>

namespace kandinsky {{

struct CodeRange {{
  int32_t first, last;
}};

// Each stride-th character from first to last has its lower case `distance` away.
struct CaseRange {{
  int32_t first, last, stride, distance;
}};
"""]
    parts += [table(f"CodeRange {name}", ranges(members(regex))) for name, regex in CLASSES.items()]
    parts.append(table("CaseRange kUpperCases", case_ranges(lower_cases())))
    HEADER.write_text("\n".join(parts) + "\n}  // namespace kandinsky\n")
    print(f"{HEADER}: {len(HEADER.read_text().splitlines())} lines")


if __name__ == "__main__":
    main()
