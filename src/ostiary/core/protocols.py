"""One protocol per contract, one verb per protocol; generic over the batch B (images or texts)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ostiary.core.card import Card
from ostiary.core.records import ClassScore, ModelEvidence, PhraseScore, Rate
from ostiary.core.run import Run
from ostiary.core.types import Labels, Scores

B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)
M_contra = TypeVar("M_contra", contravariant=True)


@runtime_checkable
class LabelledSet(Protocol[B]):
    """Samples with labels, class names, stable ids and a content digest; may be larger than memory."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def digest(self) -> str: ...
    def __len__(self) -> int: ...
    def take(self, rows: Sequence[int] | Tensor, /) -> B:
        """The samples at `rows`, in that order."""
        ...

    def batches(self, size: int, /) -> Iterator[tuple[B, Labels]]:
        """All samples in order, `size` at a time; reads each sample once."""
        ...

    def subset(self, rows: Sequence[int] | Tensor, /) -> "LabelledSet[B]":
        """A view of `rows`; ids stay the same."""
        ...


@runtime_checkable
class Predictor(Protocol[B_contra]):
    """Anything that gives class probabilities (or one-hot labels) for a batch."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def digest(self) -> str: ...
    def predict(self, x: B_contra, /) -> Tensor:
        """Probabilities [n, k], no gradients."""
        ...


@runtime_checkable
class Classifier(Predictor[B_contra], Protocol[B_contra]):
    """A model whose logits, input gradients and inner activations are at hand."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    def logits(self, x: B_contra, /) -> Tensor:
        """Logits [n, k], differentiable with respect to x."""
        ...

    def features(self, x: B_contra, /) -> Tensor:
        """The input of the module that yields the logits, flattened to [n, d], no gradients."""
        ...

    def activations(self, x: B_contra, names: Sequence[str], /) -> dict[str, Tensor]:
        """Outputs of the named modules."""
        ...

    def clone(self) -> Self:
        """A deep copy that shares no weights."""
        ...


@dataclass(frozen=True, slots=True)
class SampleScores:
    """What a screener returns: one score per sample, and per class what it measured.

    A NaN score means unscored. `suspected` [n] marks the samples the method would put forward if
    their class becomes a finding. `nearest` may name, for a row, the nearest sample of its class
    that does not look suspicious. `phrases` of texts are findings of their own; where there are some, `suspected`
    marks the samples that hold one.
    """

    ids: tuple[str, ...]
    scores: Scores
    suspected: np.ndarray
    per_class: tuple[ClassScore, ...] = ()
    nearest: dict[int, int] = field(default_factory=dict)
    phrases: tuple[PhraseScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Repaired:
    """A repaired model and what was chosen on the way."""

    model: Any
    selected: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hardened:
    """A model trained on suspect data, and what was chosen on the way.

    `selected` names each choice and what it was made on. `suspected` [n] marks the samples of the suspect set that the
    method would not learn from as they are; None where it sets none apart.
    """

    model: Any
    selected: dict[str, str] = field(default_factory=dict)
    suspected: np.ndarray | None = None


class Method(Protocol):
    """What all methods share: a frozen dataclass whose fields are its hyper-parameters."""

    card: ClassVar[Card]


@runtime_checkable
class Trigger(Protocol[B]):
    """A pure function that puts a trigger into a batch; never mutates it."""

    def __call__(self, x: B, /, *, rng: torch.Generator) -> B: ...


@runtime_checkable
class DataAttack(Protocol):
    """Gives a poisoned set and, apart from it, its truth."""

    card: ClassVar[Card]

    def poison(self, clean: Any, /, *, run: Run) -> Any: ...


@runtime_checkable
class TrainingAttack(Protocol):
    """Controls the training of a fresh model; gives it and, apart from it, the truth."""

    card: ClassVar[Card]

    def train(self, model: Any, clean: Any, recipe: Any, /, *, run: Run) -> Any: ...


@runtime_checkable
class WeightAttack(Protocol):
    """Changes a trained model with clean data at hand; gives a new one and, apart from it, the truth."""

    card: ClassVar[Card]

    def edit(self, model: Any, clean: Any, /, *, run: Run) -> Any: ...


@runtime_checkable
class Evasion(Protocol[B]):
    """Changes inputs so that a model as it stands errs on them: adversarial examples, no backdoor."""

    card: ClassVar[Card]

    def perturb(self, model: Classifier[B], x: B, y: Labels, /, *, run: Run) -> B: ...


@runtime_checkable
class DataDetector(Protocol):
    """Screens a suspect data set; `trusted` samples may be None where the card needs none."""

    card: ClassVar[Card]

    def screen(self, data: Any, model: Any, trusted: Any, /, *, run: Run) -> SampleScores: ...


@runtime_checkable
class ModelScanner(Protocol[M_contra]):
    """Scans a model; M is Predictor, Classifier or a language model, as the card's needs say."""

    card: ClassVar[Card]

    def scan(self, model: M_contra, trusted: Any, /, *, run: Run) -> ModelEvidence: ...


@runtime_checkable
class Repair(Protocol):
    """Returns a new model; the input is untouched."""

    card: ClassVar[Card]

    def repair(self, model: Any, trusted: Any, evidence: ModelEvidence | None, /, *, run: Run) -> Repaired: ...


@runtime_checkable
class Hardening(Protocol):
    """Trains on suspect data so that poison does not take.

    `fresh` is an untrained classifier, of which a copy is trained; `trusted` may be None where the card needs none;
    `recipe` says how plain training would go.
    """

    card: ClassVar[Card]

    def harden(self, data: Any, fresh: Any, trusted: Any, recipe: Any, /, *, run: Run) -> Hardened: ...


@runtime_checkable
class FittedGuard(Protocol[B_contra]):
    """A fitted inference filter: scores above `threshold` are flagged.

    `false_rejection` is measured on trusted samples that did not set the limit.
    """

    card: ClassVar[Card]
    threshold: float
    false_rejection: Rate | None

    def score(self, model: Any, x: B_contra, /) -> Scores: ...
    def score_all(self, model: Any, data: Any, /, *, run: Run) -> Scores: ...
    def flagged(self, scores: Scores, /) -> Tensor: ...
    def check_model(self, model: Any, /) -> None: ...
    def save(self, path: Path, /) -> None: ...


@runtime_checkable
class Guard(Protocol):
    """Fits an inference filter on trusted samples."""

    card: ClassVar[Card]

    def fit(self, model: Any, trusted: Any, /, *, run: Run) -> FittedGuard[Any]: ...


@runtime_checkable
class AggregationRule(Protocol):
    """Makes one update of clients' updates [n, d], with a weight, a score and a reason for each client.

    `context` says what a server knows; it holds nothing about who attacks. The updates are not changed.
    """

    card: ClassVar[Card]

    def aggregate(self, updates: np.ndarray, context: Any, /, *, run: Run) -> Any: ...


__all__ = [
    "AggregationRule",
    "Classifier",
    "DataAttack",
    "DataDetector",
    "Evasion",
    "FittedGuard",
    "Guard",
    "Hardened",
    "Hardening",
    "LabelledSet",
    "Method",
    "ModelScanner",
    "Predictor",
    "Repair",
    "Repaired",
    "SampleScores",
    "TrainingAttack",
    "Trigger",
    "WeightAttack",
]
