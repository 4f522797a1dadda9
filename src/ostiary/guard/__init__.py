"""Inference-time filters: one file per method, one line here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from ostiary.guard.fitted import Fitted
    from ostiary.guard.wrap import Guarded, GuardedLanguage
    from ostiary.models.classifier import TorchClassifier
    from ostiary.models.language import LanguageModel
    from ostiary.models.text_classifier import TextClassifier

METHODS = {
    "guard.ibd-psc": "ostiary.guard.ibd_psc:IbdPsc",
    "guard.mahalanobis": "ostiary.guard.mahalanobis:Mahalanobis",
    "guard.scale-up": "ostiary.guard.scale_up:ScaleUp",
    "guard.strip": "ostiary.guard.strip:Strip",
    "guard.ted": "ostiary.guard.ted:Ted",
    "text.guard.confguard": "ostiary.guard.confguard:ConfGuard",
    "text.guard.mahalanobis": "ostiary.guard.hidden_mahalanobis:HiddenMahalanobis",
    "text.guard.onion": "ostiary.guard.onion:Onion",
    "text.guard.rap": "ostiary.guard.rap:Rap",
    "text.guard.strip": "ostiary.guard.text_strip:TextStrip",
}


@overload
def wrap(
    model: "LanguageModel", guard: "Fitted | str | Path", *, refuse: bool = False, steps: int | None = None
) -> "GuardedLanguage": ...
@overload
def wrap(
    model: "TorchClassifier | TextClassifier", guard: "Fitted | str | Path", *, refuse: bool = False
) -> "Guarded": ...
def wrap(
    model: Any, guard: "Fitted | str | Path", *, refuse: bool = False, steps: int | None = None
) -> "Guarded | GuardedLanguage":
    """A callable that answers as `model` does and flags what `guard` (one that was fitted, or its file) warns about.

    A language model is called with prompts and answers in at most `steps` tokens: by default as many as the guard was
    fitted to, else 64. With `refuse` the answers to flagged inputs are NaN, those to flagged prompts None. Raises
    FormatError for a file that is no guard, ModelError for a guard of another model, ConfigError for a guard of answers
    that was fitted to others than those of `steps` tokens.
    """
    from ostiary.guard.fitted import load_guard
    from ostiary.guard.wrap import Guarded, GuardedLanguage
    from ostiary.models.language import LanguageModel

    fitted = load_guard(Path(guard)) if isinstance(guard, str | Path) else guard
    if isinstance(model, LanguageModel):
        return GuardedLanguage(model, fitted, refuse, steps)
    return Guarded(model, fitted, refuse)
