import pytest
from kandinsky_mindir.runner.loading import owner as owners
from kandinsky_mindir.runner.loading.footprint import PROGRAM
from kandinsky_mindir.runner.loading.owner import Owner


@pytest.fixture
def owner(monkeypatch):
    """One of whose process nothing is in use but the program."""
    monkeypatch.setattr(owners, "private", lambda: 0)
    monkeypatch.setattr(owners, "in_use", lambda: PROGRAM)
    monkeypatch.setattr(owners, "available", lambda: 10**12)
    return Owner()
