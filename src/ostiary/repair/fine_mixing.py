"""Fine-mixing: take most weights of a model of texts back to those of its base, and tune on a few trusted rows."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.catalog import method_class
from ostiary.core.errors import NotMet
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.models.text_classifier import TextClassifier
from ostiary.repair.text_tune import TextModel, TextTuning, halves, mean_loss, rows_of, tune_texts

NO_BASE = "needs the model that this one was fine-tuned from"
HINT = "give its folder with --base"
M = TypeVar("M", LanguageModel, TextClassifier)


@dataclass(frozen=True, kw_only=True, slots=True)
class FineMixing:
    """Keep a share of the entries of each tuned weight, drawn by chance; take the others from the base, and fine-tune.

    Source: Zhang, Lyu, Ma, Wang, Sun 2022, Fine-mixing: Mitigating Backdoors in Fine-tuned Language Models (Findings of
    EMNLP), sec. 4.1. Of the `shares`, tried from the smallest, the first is taken after whose tuning the loss on the
    held-out half of the trusted rows is at most `tolerance` nats (a token, or a label) above what it was; and there is
    none, that of the lowest loss. `base` must be of the same build, with the same tokens; of a classifier it is one, if
    only with a fresh head. It is trusted, and is not examined here.

    Raises NotMet without a base or for one of another build.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.fine-mixing",
        summary="takes most weights of a model back to its base and tunes the mixture on trusted rows",
        paper="Zhang et al. 2022, Findings of EMNLP, arXiv 2210.09545",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="for each share that is tried, epochs over half of the trusted rows",
        deviations=(
            "the share is chosen on the loss of held-out trusted rows; the paper chooses it on accuracy",
            "embeddings are mixed like all weights, not purified word by word",
        ),
        blind_spots=(
            "a base that is itself backdoored",
            "what a few trusted rows cannot teach anew: the tuned model's other abilities fall back to the base's",
        ),
        marks=frozenset({"mechanism"}),
    )

    shares: tuple[float, ...] = (0.1, 0.3, 0.5)
    epochs: Annotated[int, Field(gt=0)] = 15
    lr: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0)] = 16
    tolerance: Annotated[float, Field(ge=0)] = 0.03
    base: Any = None

    def repair(self, model: TextModel, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run) -> Repaired:
        """Give a mixed and tuned copy; `evidence` is not used."""
        base: TextModel = (
            base_of(self.base, LanguageModel)
            if isinstance(model, LanguageModel)
            else base_of(self.base, TextClassifier)
        )
        weights = same_build(model, base)
        held = rows_of(model, halves(model, trusted, run)[1])
        before = mean_loss(model, held)
        tuning = TextTuning(epochs=self.epochs, lr=self.lr, batch=self.batch, tolerance=self.tolerance)
        best: tuple[float, TextModel, dict[str, str]] | None = None
        for share in sorted(self.shares):
            copy = model.clone().to(run.device)
            copy.module.load_state_dict(mixed(model.module.state_dict(), weights, share, run.generator("mixing")))
            chosen = tune_texts(copy, trusted, tuning, run=run, label=self.card.name)
            now = mean_loss(copy, held)
            if best is None or now < best[0]:
                best = now, copy, {"share": f"{share:g}, loss {now:.4f}, {before:.4f} before the mixing", **chosen}
            if now <= before + self.tolerance:
                break
        if best is None:
            raise NotMet("needs a share of weights to keep", hint="leave shares as they are")
        return Repaired(best[1], best[2])


def takes_base(method: str | None) -> bool:
    """Whether the repair that is named goes by a base; none is named where the scan is to decide."""
    return method is not None and "base" in {field.name for field in dataclasses.fields(method_class("repair", method))}


def base_of(given: object, kind: type[M]) -> M:
    """The base that a repair was given, of the kind of the model. Raises NotMet for none."""
    if not isinstance(given, kind):
        raise NotMet(NO_BASE, hint=HINT)
    return given


def same_build(model: TextModel, base: TextModel) -> Mapping[str, Tensor]:
    """The base's weights, once they are known to fit entry by entry, with equal tokens and classes. Raises NotMet."""
    ours, theirs = model.module.state_dict(), base.module.state_dict()
    if {name: one.shape for name, one in ours.items()} != {name: one.shape for name, one in theirs.items()}:
        raise NotMet(f"{NO_BASE}; '{base.name}' is of another build", hint=HINT)
    if model.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        raise NotMet(f"{NO_BASE}; '{base.name}' has other tokens", hint=HINT)
    # A fresh head has names of its own.
    if model.classes != base.classes and set(model.classes) == set(base.classes):
        raise NotMet(f"{NO_BASE}; '{base.name}' has the same classes in another order", hint=HINT)
    return theirs


def mixed(
    tuned: Mapping[str, Tensor], base: Mapping[str, Tensor], share: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Each entry from `tuned` with the chance `share`, else from `base`; what is no number of weights stays."""
    made: dict[str, Tensor] = {}
    for name, own in tuned.items():
        if own.is_floating_point():
            kept = torch.rand(own.shape, generator=generator).to(own.device) < share
            made[name] = torch.where(kept, own, base[name].to(own))
        else:
            made[name] = own.clone()
    return made
