"""The precision of an engine's products and convolutions: which there are, and what this processor has kernels for."""

from __future__ import annotations

import platform
from typing import NamedTuple

from ..bundle.packed import processor
from ..common.options import as_choice
from .interface import Say


class Kernels(NamedTuple):
    """What computes in a precision. machine: where there are such kernels; word: of /proc/cpuinfo, where they run.

    instructions: what that word stands for.
    """

    machine: str
    word: str
    instructions: str


KERNELS = {
    "bfloat16": Kernels("x86_64", "avx512_bf16", "AVX512_BF16"),  # of oneDNN
    "float16": Kernels("aarch64", "asimdhp", "ASIMDHP, of ARMv8.2"),  # of Lite itself
}
PRECISIONS = ("float32", *KERNELS)
CHOICES = (*PRECISIONS, "auto")


def choose(asked: str, say: Say) -> str:
    """The one of PRECISIONS that `asked`, one of CHOICES, comes to on this machine. UserError for another word.

    "auto" is the fastest that the processor has kernels for. Where it lacks those that were asked for by name, float32 is
    used instead, and `say` is told so.
    """
    as_choice(asked, CHOICES, "precision")
    if asked == "auto":
        return next((name for name in KERNELS if not lacking(name)), "float32")
    reason = lacking(asked)
    if reason:
        say(f"{asked}: {reason}: float32 is used instead")
    return "float32" if reason else asked


def lacking(precision: str = "bfloat16") -> str:
    """What this machine lacks for products and convolutions in a precision; "" if nothing."""
    if precision not in KERNELS:
        return ""
    kernels = KERNELS[precision]
    if platform.machine() != kernels.machine:
        return f"its kernels are for {kernels.machine}, not {platform.machine()}"
    return "" if kernels.word in processor().split() else f"this processor lacks its instructions ({kernels.instructions})"
