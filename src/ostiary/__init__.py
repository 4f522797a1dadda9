"""Ostiary finds, proves, closes and keeps out backdoors in machine-learning models.

The public names below are the whole API; each verb returns a Record. Nothing heavy is imported
until one of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "scan_model": "ostiary.api",
    "screen_data": "ostiary.api",
    "harden_training": "ostiary.api",
    "repair_model": "ostiary.api",
    "fit_guard": "ostiary.api",
    "load": "ostiary.loading",
    "admit": "ostiary.loading",
    "Record": "ostiary.core.records",
    "MethodResult": "ostiary.core.records",
    "Finding": "ostiary.core.records",
    "Rate": "ostiary.core.records",
    "Caution": "ostiary.core.records",
}

__all__ = [
    "Caution",
    "Finding",
    "MethodResult",
    "Rate",
    "Record",
    "admit",
    "fit_guard",
    "harden_training",
    "load",
    "repair_model",
    "scan_model",
    "screen_data",
]

if TYPE_CHECKING:
    from ostiary.api import fit_guard, harden_training, repair_model, scan_model, screen_data
    from ostiary.core.records import Caution, Finding, MethodResult, Rate, Record
    from ostiary.loading import admit, load


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'ostiary' has no attribute '{name}'")
