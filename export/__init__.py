"""Exports a Kandinsky 2.2 checkpoint to a bundle of MindIR graphs."""

import os
from contextlib import suppress
from importlib.util import find_spec

os.environ.setdefault("GLOG_v", "3")  # MindSpore's log starts at warnings, which are its own affair; set before its import
# protobuf's implementation in C, if it is there: MindSpore asks for the one in Python where nobody has asked for another.
with suppress(ModuleNotFoundError):
    if find_spec("google._upb"):
        os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "upb")
