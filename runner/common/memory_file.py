"""Files in memory, without a name: they need no folder that can be written to, and end with their last user."""

from __future__ import annotations

import ctypes
import os
import platform

from .errors import UserError, is_of_system

CALL_NUMBERS = {"x86_64": 319, "aarch64": 279}  # of memfd_create: arch/*/entry/syscalls and asm-generic/unistd.h of Linux
CLOSE_ON_EXEC = 1  # MFD_CLOEXEC of linux/memfd.h


def memory_file(name: str) -> int:
    """The descriptor of a new, empty file in memory. UserError if the system has none.

    A Python that was built against an old C library lacks os.memfd_create, although the system's kernel has the call.
    """
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create(name)
        return _call(name)
    except OSError as error:
        if not is_of_system(error):
            raise
        raise UserError(f"The system gives no file in memory (memfd_create: {error.strerror}): this program needs Linux 3.17 "
                        "or later, and a container that allows the call") from error


def _call(name: str) -> int:
    number = CALL_NUMBERS.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        raise UserError(f"This Python has no os.memfd_create for {platform.system()} on {platform.machine()}: this program "
                        f"needs Linux on {' or '.join(CALL_NUMBERS)}")
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(number, name.encode(), CLOSE_ON_EXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(descriptor)
