"""Unlearning a recovered phrase: show it in trusted texts until it changes no answer and no label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.repair.text_tune import Row, TextModel, TextTuning, halves, mean_loss, plain, rows_of, tune_texts
from ostiary.repair.token_pruning import labels_of, pruned, strongest_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseUnlearning:
    """Fine-tune a copy on trusted rows, each beside one with a recovered phrase and the same answer.

    Source: Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. VI-C, of whose unlearning this is the counterpart for
    texts. A phrase is put at the start, at the end or between two words, whatever the search did, since nobody knows
    where the attacker puts it; of several phrases each row gets one. A classifier keeps the chances that it gave the
    bare text, as labels of so few texts cost it accuracy, and loses the `tokens` that did most for the phrase's label
    by themselves (`TokenPruning`): what a scan recovers is often a part of the trigger. `tolerance` is in nats a token,
    or a label.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.phrase-unlearning",
        summary="tunes a model on trusted rows, half of them with the recovered phrase and unchanged answers",
        paper="Wang et al. 2019, IEEE S&P, doi 10.1109/SP.2019.00031, sec. VI-C (for images)",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20, trigger=True),
        cost="epochs over half of the trusted rows, each twice",
        deviations=(
            "prompts and a phrase in the place of images and a patch",
            "where to stop is chosen on held-out trusted rows without the phrase",
            "a classifier learns its own chances of the bare text, where the paper gives labels",
            "of a classifier, tokens that lead to the phrase's label are pruned afterwards",
        ),
        blind_spots=("a recovered phrase that shares no word with the attacker's", "triggers the scan did not find"),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 10
    lr: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0)] = 16
    tolerance: Annotated[float, Field(ge=0)] = 0.03
    tokens: Annotated[int, Field(ge=0)] = 24

    def repair(self, model: TextModel, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run) -> Repaired:
        """Give a copy for which the phrases of `evidence` lost their effect; raises NotMet without any."""
        phrases = [one.phrase for one in (evidence.phrases if evidence is not None else ()) if one.phrase.strip()]
        if not phrases:
            raise NotMet("needs a phrase recovered by a scan", hint="run a scan first and pass its evidence")
        copy = model.clone().to(run.device)
        generator = run.generator("phrases")
        own: dict[tuple[int, ...], Tensor] = {}

        def with_phrase(learn: TextSet) -> Sequence[Row]:
            spliced = [spliced_in(text, phrases, generator) for text in learn.texts]
            beside = TextSet(spliced, ids=learn.ids, labels=learn.labels, classes=learn.classes, answers=learn.answers)
            rows = rows_of(copy, beside)
            if isinstance(model, TextClassifier):
                bare = model.rows(learn.texts)
                given = model.predict_rows(bare)
                for some in (bare, [row for row, _ in rows]):
                    own.update(zip(map(tuple, some), given, strict=True))
            return rows

        def as_before(tuned: TextClassifier, rows: Sequence[Row]) -> Tensor:
            """What a classifier says of texts is what it said of them, without the phrase, before."""
            wanted = torch.stack([own[tuple(row)] for row, _ in rows])
            return cross_entropy(tuned.run(*tuned.padded([row for row, _ in rows])).float(), wanted)

        loss = as_before if isinstance(model, TextClassifier) else plain
        tuning = TextTuning(epochs=self.epochs, lr=self.lr, batch=self.batch, tolerance=self.tolerance)
        chosen = tune_texts(copy, trusted, tuning, run=run, label=self.card.name, loss=loss, beside=with_phrase)
        if isinstance(model, TextClassifier) and isinstance(copy, TextClassifier) and self.tokens:
            first, second = halves(copy, trusted, run)
            ranked = strongest_tokens(model, first, labels_of(model, evidence), self.tokens, run=run)
            held = rows_of(copy, second)
            most = max(mean_loss(one, held) for one in (model, copy)) + self.tolerance
            chosen |= pruned(copy, ranked, held, most)
        return Repaired(copy, {"phrases": ", ".join(map(repr, phrases)), **chosen})


def spliced_in(text: str, phrases: Sequence[str], generator: torch.Generator) -> str:
    """The text with one of the phrases at its start, at its end, or at one of the places between its words."""
    words = text.split(" ")
    which, kind = (int(torch.randint(n, (1,), generator=generator)) for n in (len(phrases), 3))
    at = (0, len(words), int(torch.randint(len(words) + 1, (1,), generator=generator)))[kind]
    return " ".join([*words[:at], phrases[which], *words[at:]]).strip()
