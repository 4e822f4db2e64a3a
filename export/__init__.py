"""Exports a Kandinsky 2.2 checkpoint to a bundle of MindIR graphs."""

import os

os.environ.setdefault("GLOG_v", "3")  # MindSpore's log starts at warnings, which are its own affair; set before its import
