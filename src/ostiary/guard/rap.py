"""RAP: a word that lowers the probability of trusted texts; one that it does not lower is suspicious."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu

from ostiary.core.card import Card, Needs
from ostiary.core.errors import ModelError, NotMet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Labels, Scores
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.guard.fitted import Fitted, Takes
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.tokens import table_of

Row = Sequence[int]

CARD = Card(
    id="text.guard.rap",
    summary="puts a word before a text that lowers the probability of trusted ones, and flags texts that it leaves",
    paper="Yang et al. 2021, EMNLP, arXiv 2110.07831",
    official_code="https://github.com/lancopku/RAP",
    needs=Needs(access="gradients", modality="text", trusted_per_class=20),
    cost="two forward passes per text; a few hundred batches forward and backward when it is fitted",
    code="OS409",
    deviations=(
        "a word for each class, and a text is tried with that of its predicted class: the paper knows the target",
        "Adam instead of plain steps along the gradient, whose right length depends on the model",
        "fitted beside the model, whose weights stay: the vector is put in where the word stands",
    ),
    blind_spots=(
        "texts that the model is very sure of, which no word lowers, are flagged like triggered ones",
        "triggers that raise a probability no further than the word lowers it",
        "classes of few trusted texts, to which their word is fitted alone",
        "models in which a trigger weighs little more than other words",
        "small classifiers trained from nothing: AUROC 0.48 and 0.54 on rare words (an encoder that was tuned: 0.96)",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedRap(Fitted):
    """A vector [k, d] for each class, to stand before a text that is predicted as it."""

    card: ClassVar[Card] = CARD
    takes: ClassVar[Takes] = "texts with labels"
    tensors: ClassVar[tuple[str, ...]] = ("vectors",)

    vectors: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def __post_init__(self) -> None:
        if self.vectors.dim() != 2 or self.vectors.dtype != torch.float32 or not bool(self.vectors.isfinite().all()):
            raise ValueError("no vector for each class")  # a FormatError where a file is read

    def check_model(self, model: TextClassifier) -> None:
        """Raise ModelError when `model` is not the one this guard was fitted to, or its words are of another size."""
        Fitted.check_model(self, model)
        if self.vectors.shape != (wanted := (len(model.classes), table_of(model.module).shape[1])):
            raise ModelError(
                f"the guard has words of {tuple(self.vectors.shape)}, the model takes {wanted}",
                hint="fit the guard to this model with `ostiary guard fit`",
            )

    def score(self, model: TextClassifier, texts: Sequence[str], /) -> Scores:
        """Minus the fall of the predicted class's probability behind its word; in [-1, 1]."""
        return self.answer(model, texts)[1]

    def answer(self, model: TextClassifier, texts: Sequence[str], /) -> tuple[Tensor, Scores]:
        """The model's probabilities and the scores, of two passes."""
        rows = [model.encode(text) for text in texts]
        before = model.predict_rows([model.row(row) for row in rows]).cpu()
        return before, -falls(model, rows, before, self.vectors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rap:
    """The fall of the predicted class's probability when a fitted word stands before the text; small is suspicious.

    Source: Yang, Lin, Li, Zhou, Sun 2021, RAP: Robustness-Aware Perturbations for Defending against Backdoor Attacks on
    NLP Models (EMNLP), sec. 3: the embedding of one rare word is fitted, at its norm, so that the probability of the
    protected class falls by `low` to `high` on trusted texts of that class. A trigger holds a text in its class, so
    that the fall of triggered ones is smaller.

    Raises NotMet where the model gives some class to none of the trusted texts.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedRap

    low: Annotated[float, Field(gt=0, lt=1)] = 0.1
    high: Annotated[float, Field(gt=0, le=1)] = 0.3
    steps: Annotated[int, Field(ge=1)] = 100
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 0.01
    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: TextClassifier, trusted: TextSet, /, *, run: Run) -> FittedRap:
        """Fit the words on half of the trusted texts, set the limit on a quarter, measure on the last."""
        parts = stratified_rows(trusted.labels, (0.5, 0.25, 0.25), run.seed)
        own, limit, check = (trusted.subset(rows) for rows in parts)
        rows = [model.encode(text) for text in own.texts]
        before = model.predict_rows([model.row(row) for row in rows])
        predicted = before.argmax(1)
        start = self._rare(model, rows, run)
        vectors = []
        for label, name in enumerate(model.classes):
            mine = (predicted == label).nonzero().squeeze(1)
            if not len(mine):
                raise NotMet(f"needs trusted texts that the model gives each class; it gives none '{name}'")
            kept = [rows[at] for at in mine.tolist()]
            vectors.append(self._lowered(model, kept, before[mine, label], label, start, run))
        fitted = FittedRap(torch.stack(vectors).float().cpu(), 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted

    def _rare(self, model: TextClassifier, rows: Sequence[Row], run: Run) -> Tensor:
        """The vector [d] of a word that no trusted text has; of any word where they have all."""
        held = {token for row in rows for token in row}
        rare = [token for token in model.words if token not in held] or list(model.words)
        at = int(torch.randint(len(rare), (), generator=run.generator("rare")))
        return table_of(model.module)[rare[at]].clone()

    def _lowered(
        self, model: TextClassifier, rows: Sequence[Row], before: Tensor, label: int, start: Tensor, run: Run
    ) -> Tensor:
        """`start` turned, at its norm, so that the probability `before` [n] of the label falls as far as is wanted."""
        vector, norm, generator = start.clone().requires_grad_(), start.norm(), run.generator(f"rap-{label}")
        optimizer = torch.optim.Adam([vector], lr=self.lr)
        for step in range(self.steps):
            run.step(step, self.steps, CARD.name)
            some = torch.randperm(len(rows), generator=generator)[: self.batch].tolist()
            ids, mask = model.padded([behind(model, rows[at]) for at in some])
            after = model.run_embedded(ids, mask, put_before(model, vector)).float().softmax(1)[:, label]
            fall = before[some] - after
            loss = (relu(self.low - fall) + relu(fall - self.high)).mean()
            (vector.grad,) = torch.autograd.grad(loss, [vector])
            optimizer.step()
            with torch.no_grad():
                vector *= norm / vector.norm().clamp(min=1e-12)
        return vector.detach()


def put_before(model: TextClassifier, vector: Tensor) -> Callable[[Tensor], Tensor]:
    """What puts a vector [d] into the place that `behind` makes, in embedded rows."""
    at = len(model.before)

    def put(given: Tensor) -> Tensor:
        own = vector.to(given).expand(len(given), 1, -1)
        return torch.cat([given[:, :at], own, given[:, at + 1 :]], dim=1)

    return put


def behind(model: TextClassifier, row: Row) -> list[int]:
    """A row as the model reads it, with a place for one more word before it."""
    # Of no account but for its place; a special token could move those behind it.
    word = next(token for token in range(model.vocabulary) if token not in model.special)
    return model.row([word, *row])


def falls(model: TextClassifier, rows: Sequence[Row], before: Tensor, vectors: Tensor) -> Tensor:
    """By how much the probability [n] of the class that each row gets by `before` [n, k] falls behind its vector."""
    predicted: Labels = before.argmax(1)
    found = torch.empty(len(rows))
    for label in predicted.unique().tolist():
        mine = (predicted == label).nonzero().squeeze(1)
        own = [behind(model, rows[at]) for at in mine.tolist()]
        after = model.predict_rows(own, put=put_before(model, vectors[label])).cpu()
        found[mine] = before[mine, label] - after[:, label]
    return found
