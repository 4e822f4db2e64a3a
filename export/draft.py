"""A bundle while it is being made."""

from __future__ import annotations

from pathlib import Path

from ..runner.bundle.manifest import Manifest
from ..runner.bundle.opened import Bundle


class Draft(Bundle):
    """A Bundle without a manifest on disk. `manifest` need not list the files: they are used as they are."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path, self.manifest = path, manifest

    def file(self, name: str) -> Path:
        return self.path / name
