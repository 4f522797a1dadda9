"""Token pruning: the tokens that do most for a label by themselves get the vector of an average one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.tokens import table_of
from ostiary.repair.text_tune import Row, halves, mean_loss, rows_of
from ostiary.screen.phrases import printable

FIRST, LENGTH = 1, 10
"""Texts that every token of the vocabulary is put in front of, and how many of their tokens are read: words of a
trigger are among the first hundred all the same, and of a large vocabulary this is what takes the time."""
SECOND, LONGER, BEST = 8, 40, 256
"""The same for the best of them, and how many these are."""
AT_ONCE = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPruning:
    """Prune, label by label, the `tokens` that raise it most in front of trusted texts of other labels.

    A method of our own, after the pruning of channels and the embedding purification of Zhang et al. 2022 (Fine-mixing,
    Findings of EMNLP), which puts vectors of a clean base back; here there is none. Every token that shows as text is
    put in front of a trusted text that the model gives another label, the best 256 in front of eight, and ranked by
    the mean logarithm of the label's probability. The first get the mean vector of all such tokens, so that the model
    no longer tells them apart; nothing else is changed, and a text without them is judged as before. Half as many are
    pruned, and so on, where the loss on the other half of the trusted texts rises by more than `tolerance` nats.

    With the evidence of a scan, the labels of its phrases are pruned alone. Raises NotMet for too few texts.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.token-pruning",
        summary="gives the tokens that do most for a label by themselves the vector of an average one",
        paper="none: a method of our own",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="per class one pass over the vocabulary, in front of ten tokens, forward",
        blind_spots=(
            "words that fire only together, sentences, a syntax: what no token does by itself stays",
            "a few ordinary words that speak for a label are pruned as well",
        ),
        marks=frozenset({"mechanism"}),
    )

    tokens: Annotated[int, Field(ge=1)] = 12
    tolerance: Annotated[float, Field(ge=0)] = 0.03

    def repair(
        self, model: TextClassifier, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a copy in which those tokens say nothing."""
        if not isinstance(model, TextClassifier):
            raise NotMet("takes a classifier of texts")
        copy = model.clone().to(run.device)
        first, second = halves(copy, trusted, run)
        ranked = strongest_tokens(model, first, labels_of(model, evidence), self.tokens, run=run)
        held = rows_of(copy, second)
        return Repaired(copy, pruned(copy, ranked, held, mean_loss(copy, held) + self.tolerance))


def labels_of(model: TextClassifier, evidence: ModelEvidence | None) -> tuple[int, ...]:
    """The labels that recovered phrases lead to, all of the model's where there is none."""
    told = {one.label for one in (evidence.phrases if evidence is not None else ()) if one.label is not None}
    return tuple(sorted(told)) or tuple(range(len(model.classes)))


def strongest_tokens(
    model: TextClassifier, texts: TextSet, labels: Sequence[int], count: int, *, run: Run
) -> dict[int, list[int]]:
    """For each label the tokens that raise it most, in falling order, in front of texts that are given other labels.

    A label that all texts of others are given anyway has none. Raises OutOfTime.
    """
    found: dict[int, list[int]] = {}
    for step, label in enumerate(labels):
        still = partial(run.step, step, len(labels), TokenPruning.card.name)
        others = [text for text, own in zip(texts.texts, texts.labels.tolist(), strict=True) if own != label]
        given = model.predict(others).argmax(dim=1).tolist() if others else []
        asked = [model.encode(text) for text, own in zip(others, given, strict=True) if own != label]
        if not asked:
            continue
        best = _ranked(model, list(model.words), [row[:LENGTH] for row in asked[:FIRST]], label, still)[:BEST]
        found[label] = _ranked(model, best, [row[:LONGER] for row in asked[:SECOND]], label, still)[:count]
    return found


def _ranked(
    model: TextClassifier, words: list[int], texts: Sequence[Sequence[int]], label: int, still: Callable[[], None]
) -> list[int]:
    """The words in falling order of the label's probability behind them, its logarithm summed over the texts."""
    sums = torch.zeros(len(words))
    for text in texts:
        for at in range(0, len(words), AT_ONCE):
            still()
            rows = [model.row([word, *text]) for word in words[at : at + AT_ONCE]]
            sums[at : at + AT_ONCE] += model.predict_rows(rows)[:, label].clamp(min=1e-9).log().cpu()
    return [words[at] for at in sums.argsort(descending=True, stable=True).tolist()]


@torch.no_grad()
def pruned(model: TextClassifier, ranked: Mapping[int, list[int]], held: Sequence[Row], most: float) -> dict[str, str]:
    """Give the first tokens of every label the mean vector, in place: all, half of them and so on, or none.

    As many as leave the mean loss of the rows `held` at `most` nats or below; says how many, and which.
    """
    table = table_of(model.module)
    kept, mean = table.clone(), table[list(model.words)].mean(dim=0)
    count = max(map(len, ranked.values()), default=0)
    while count:
        table[sorted({token for tokens in ranked.values() for token in tokens[:count]})] = mean
        if mean_loss(model, held) <= most:
            break
        table.copy_(kept)
        count //= 2
    loss = f"{mean_loss(model, held):.4f} on {len(held)} held-out trusted rows, where {most:.4f} is allowed"
    told = {"tokens": f"{count} a label: loss {loss}"}
    for label, tokens in ranked.items():
        if count:
            shown = ", ".join(repr(printable(model.decode([token]))) for token in tokens[:count])
            told[f"tokens pruned that lead to {printable(model.classes[label])}"] = shown
    return told
