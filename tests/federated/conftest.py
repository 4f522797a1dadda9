"""Puts the shared helpers on the import path, and keeps Flower from collecting garbage once a client."""

import gc
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bulyan has every reply collected by itself, which takes seconds in a process that holds as much as this one."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
