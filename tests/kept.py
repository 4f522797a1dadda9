"""What several processes of one test run need is made once: the first that asks makes it, the others read it."""

import fcntl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

folder = Path("unset")
"""Where it is kept; tests/conftest.py gives every run one that all its processes share."""


def kept(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, which has to pickle: a copy of its own for every call."""
    return all_kept({name: make})[name]


def all_kept(makers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each of them gives, by its name; while another process makes one, this one goes on with the next."""
    found: dict[str, Any] = {}
    for how in (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX):
        for name in [name for name in makers if name not in found]:
            try:
                found[name] = _under_lock(folder / name, makers[name], how)
            except BlockingIOError:
                continue
    return found


def _under_lock(path: Path, make: Callable[[], Any], how: int) -> Any:
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, how)
        if not path.exists():
            partial = Path(f"{path}.partial")
            torch.save(make(), partial)
            partial.rename(path)
        return torch.load(path, weights_only=False)
