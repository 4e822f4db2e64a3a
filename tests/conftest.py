"""Fixtures that several test files share. Bundles are exported once a session."""

import os
import signal

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings, before it is imported
# A shell lets what it starts in the background ignore Ctrl-C, and so would every program that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)

import checkpoints
import numpy as np
import pytest
from kandinsky_mindir.runner import engine as engines


@pytest.fixture(scope="session")
def engine():
    """MindSpore Lite, installed first where it is not."""
    return engines.create()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """A function from a checkpoint's name ("micro", "narrow", "wide") to its exported bundle."""
    from kandinsky_mindir.export.bundle import export_bundle

    exported = {}

    def bundle(name):
        if name not in exported:
            folder = tmp_path_factory.mktemp(name)
            prior, decoder = checkpoints.save(name, folder)
            exported[name] = export_bundle(prior, decoder, folder / "bundle", checkpoints.SIZES[name], progress=False)
        return exported[name]

    return bundle


class Tape:
    """A noise source that remembers the shapes it was asked for."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.shapes = []

    def standard_normal(self, size):
        self.shapes.append(tuple(size))
        return self.random.standard_normal(size)


@pytest.fixture
def tape():
    return Tape


@pytest.fixture
def reference_noise(monkeypatch):
    """A function that makes diffusers draw all its noise from a Tape."""
    import sys

    import torch

    def use(tape):
        def randn_tensor(shape, *_, **__):
            return torch.from_numpy(tape.standard_normal(tuple(shape)).astype(np.float32))

        for name, module in list(sys.modules.items()):
            if name.startswith("diffusers.") and "randn_tensor" in vars(module):
                monkeypatch.setattr(module, "randn_tensor", randn_tensor)

    return use
