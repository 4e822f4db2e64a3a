"""The precision of an engine's products and convolutions: which there are, and what this processor has kernels for.

float32 is computed everywhere: by kernels of ours (native/*_kernel.h) where a processor has what they take, else by Lite's.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

from ..bundle.packed import processor
from ..common.options import as_choice
from .interface import Say


class Kernels(NamedTuple):
    """What computes in a precision. machine: where there are such kernels; words: of /proc/cpuinfo, where they run.

    instructions: what those words stand for.
    """

    machine: str
    words: tuple[str, ...]
    instructions: str


KERNELS = {
    "bfloat16": Kernels("x86_64", ("avx512_bf16",), "AVX512_BF16"),  # ours, with oneDNN
    "float16": Kernels("aarch64", ("asimdhp",), "ASIMDHP, of ARMv8.2"),  # of Lite itself
}
OWN_FLOAT32 = Kernels("x86_64", ("avx512bw", "avx512f", "avx512vl"), "AVX512F, AVX512BW, AVX512VL")  # ours, with oneDNN
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
    return _lacking(KERNELS[precision]) if precision in KERNELS else ""


def lacking_own_float32() -> str:
    """What this machine lacks for kernels of ours in float32; "" if nothing."""
    return _lacking(OWN_FLOAT32)


def _lacking(kernels: Kernels) -> str:
    if platform.machine() != kernels.machine:
        return f"its kernels are for {kernels.machine}, not {platform.machine()}"
    has_all = set(kernels.words) <= set(processor().split())
    return "" if has_all else f"this processor lacks its instructions ({kernels.instructions})"
