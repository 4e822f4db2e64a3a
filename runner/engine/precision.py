"""The precision of an engine's products and convolutions: which there are, and what this processor has kernels for."""

from __future__ import annotations

import platform

from ..bundle.packed import processor
from ..common.options import as_choice
from .interface import Say

PRECISIONS = ("float32", "bfloat16")
CHOICES = (*PRECISIONS, "auto")


def choose(asked: str, say: Say) -> str:
    """The one of PRECISIONS that `asked`, one of CHOICES, comes to on this machine. UserError for another word.

    "auto" is the fastest that the processor has kernels for. Where it lacks those of bfloat16, float32 is used instead, and
    `say` is told so if they were asked for by name.
    """
    as_choice(asked, CHOICES, "precision")
    if asked == "float32":
        return asked
    reason = lacking()
    if reason and asked != "auto":
        say(f"bfloat16: {reason}: float32 is used instead")
    return "float32" if reason else "bfloat16"


def lacking() -> str:
    """What this machine lacks for products and convolutions in bfloat16; "" if nothing."""
    if platform.machine() != "x86_64":
        return f"its kernels are for x86_64, not {platform.machine()}"
    return "" if "avx512_bf16" in processor().split() else "this processor lacks its instructions (AVX512_BF16)"
