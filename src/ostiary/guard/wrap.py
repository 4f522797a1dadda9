"""A model behind a guard: one callable that answers and says which inputs it was warned about."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ostiary.core.types import Images, Scores
from ostiary.guard.fitted import Fitted


@dataclass(frozen=True, slots=True)
class Answers:
    """Probabilities [n, k], the guard's scores [n], and which inputs it flags [n]; rows that were refused are NaN."""

    probabilities: Tensor
    scores: Scores
    flagged: Tensor


@dataclass(frozen=True, slots=True)
class Guarded:
    """A model and the guard that was fitted to it; call it on images [n, c, h, w] in [0, 1].

    With `refuse` the answers to flagged inputs are NaN, so that nobody takes them for answers. Raises ModelError when
    the guard was fitted to another model.
    """

    model: Any
    guard: Fitted
    refuse: bool = False

    def __post_init__(self) -> None:
        self.guard.check_model(self.model)

    def __call__(self, x: Images, /) -> Answers:
        """What the model answers and the guard says of every input."""
        probabilities, scores = self.guard.answer(self.model, x)
        flagged = self.guard.flagged(scores)
        if self.refuse:
            probabilities = probabilities.masked_fill(flagged[:, None], float("nan"))
        return Answers(probabilities, scores, flagged)
