"""IBD-PSC: amplify the last normalisation layers; a triggered input keeps its prediction."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Scores
from ostiary.data import split
from ostiary.guard.fitted import Fitted
from ostiary.models.classifier import TorchClassifier
from ostiary.models.trace import trace

CARD = Card(
    id="guard.ibd-psc",
    summary="amplifies the last normalisation layers and measures how far the model stays with its prediction",
    paper="Hou et al. 2024, ICML, arXiv 2405.09786",
    official_code="https://github.com/THUYimingLi/BackdoorBox",
    needs=Needs(access="gradients", modality="images", trusted_per_class=4),
    cost="six forward passes per input",
    code="OS403",
    blind_spots=(
        "honest inputs of the backdoor's target are flagged, too: amplified, the model gives every input that class",
        "networks of few normalisation layers: of a CNN with four, 45 % of honest inputs are flagged",
        "adaptive, source-specific and all-to-all triggers",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedIbdPsc(Fitted):
    """How many of the last normalisation layers are amplified in each pass, `layers` [n], and by how much, `factor` [].

    Amplifying is a hook on a layer's output: scale and shift times the factor are the output times it.
    """

    card: ClassVar[Card] = CARD
    tensors: ClassVar[tuple[str, ...]] = ("layers", "factor")
    fused: ClassVar[bool] = False

    layers: Tensor
    factor: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: TorchClassifier, x: Images, /) -> Scores:
        """Mean probability, over the amplified passes, of what the model predicts for each input; in [0, 1]."""
        return self.answer(model, x)[1]

    def answer(self, model: TorchClassifier, x: Images, /) -> tuple[Tensor, Scores]:
        """The model's probabilities, unamplified, and the scores."""
        norms, probabilities = norms_of(model), model.predict(x)
        predicted = probabilities.argmax(1, keepdim=True)
        kept = []
        for last in self.layers.tolist():
            with amplified(norms[-last:], float(self.factor)):
                kept.append(model.predict(x).gather(1, predicted).squeeze(1))
        return probabilities.cpu(), torch.stack(kept).mean(0).cpu()


@dataclass(frozen=True, kw_only=True, slots=True)
class IbdPsc:
    """Confidence in a prediction while the last batch normalisations are amplified; much is suspicious.

    Source: Hou, Feng, Hua, Luo, Zhang, Li 2024, IBD-PSC (ICML; arXiv 2405.09786), sec. 4: scale and shift of the last
    k batch normalisations times `factor`, with k from the first at which the model errs on more than the share
    `error` of benign samples, and the `passes` - 1 after it; the score is the mean confidence in the unamplified
    prediction, and the limit is 0.9 for every model.

    Raises NotMet for a model without batch normalisation.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedIbdPsc

    factor: Annotated[float, Field(gt=1)] = 1.5
    passes: Annotated[int, Field(ge=1)] = 5
    error: Annotated[float, Field(gt=0, lt=1)] = 0.6
    limit: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def fit(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> FittedIbdPsc:
        """Choose the layers on half of the trusted images, measure on the other half what the limit flags."""
        choose, check = split(trusted, (0.5, 0.5), seed=run.seed)
        norms = norms_of(model)
        if not norms:
            raise NotMet("needs batch normalisation, the model has none")
        first = next((last for last in range(1, len(norms) + 1) if self._errs(model, norms[-last:], choose, run)), None)
        first = len(norms) if first is None else first
        layers = torch.arange(first, min(first + self.passes, len(norms) + 1))
        fitted = FittedIbdPsc(layers, torch.tensor(self.factor), self.limit, model.digest)
        fitted.measure(model, check, run)
        return fitted

    def _errs(self, model: TorchClassifier, norms: list[nn.Module], data: LabelledSet[Images], run: Run) -> bool:
        """Whether the model with these layers amplified errs on more than the share `error`."""
        wrong = 0
        with amplified(norms, self.factor):
            for x, labels in data.batches(FittedIbdPsc.scored_at_once):
                wrong += int((model.predict(x.to(run.device)).argmax(1).cpu() != labels).sum())
        return wrong > self.error * len(data)


def norms_of(model: TorchClassifier) -> list[nn.Module]:
    """The batch normalisations of a model, in the order in which they are called."""
    calls, _ = trace(model.module, model.probe_normalised())
    found = [call.module for call in calls if isinstance(call.module, nn.BatchNorm2d)]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def amplified(norms: list[nn.Module], factor: float) -> Iterator[None]:
    """Multiply what these layers give by `factor`, within the block; bounds that they carry hold afterwards."""
    hooks = [norm.register_forward_hook(lambda _, __, output: output * factor, prepend=True) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
