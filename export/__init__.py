"""Exports a Kandinsky 2.2 checkpoint to a bundle of MindIR graphs."""

import os

import google.protobuf.descriptor  # noqa: F401  (before MindSpore, which asks for protobuf's slow implementation in Python)

os.environ.setdefault("GLOG_v", "3")  # MindSpore's log starts at warnings, which are its own affair; set before its import
