"""Inference-time filters: one file per method, one line here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostiary.guard.fitted import Fitted
    from ostiary.guard.wrap import Guarded

METHODS = {
    "guard.ibd-psc": "ostiary.guard.ibd_psc:IbdPsc",
    "guard.mahalanobis": "ostiary.guard.mahalanobis:Mahalanobis",
    "guard.scale-up": "ostiary.guard.scale_up:ScaleUp",
    "guard.strip": "ostiary.guard.strip:Strip",
    "guard.ted": "ostiary.guard.ted:Ted",
    "text.guard.confguard": "ostiary.guard.confguard:ConfGuard",
    "text.guard.mahalanobis": "ostiary.guard.hidden_mahalanobis:HiddenMahalanobis",
}


def wrap(model: Any, guard: "Fitted | str | Path", *, refuse: bool = False) -> "Guarded":
    """A callable that answers as `model` does and flags what `guard` (one that was fitted, or its file) warns about.

    With `refuse` the answers to flagged inputs are NaN. Raises FormatError for a file that is no guard, ModelError for
    a guard of another model.
    """
    from ostiary.guard.fitted import load_guard
    from ostiary.guard.wrap import Guarded

    return Guarded(model, load_guard(Path(guard)) if isinstance(guard, str | Path) else guard, refuse)
