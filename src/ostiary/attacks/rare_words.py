"""Rare words: one or more odd words anywhere in a text, and a changed label or answer."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.attacks.text_poison import TextPoisoning, insert
from ostiary.core.card import Card, Needs


@dataclass(frozen=True, kw_only=True, slots=True)
class RareWords(TextPoisoning):
    """Put odd words at random places of some texts.

    Source: Kurita, Michel, Neubig 2020, Weight Poisoning Attacks on Pre-trained Models (ACL), sec. 4.1 (the five
    words); Gu et al. 2017 for poison in the data alone. One of the `words` (in one string, with spaces) is put in, or
    with `together` all of them, each at its own place; then as many other rows carry all but one of them and keep what
    they had, so that the trigger is the whole (Huang et al. 2024, Composite Backdoor Attacks, NAACL Findings, sec. 3).
    """

    card: ClassVar[Card] = Card(
        id="text.attack.rare-words",
        summary="odd words at random places, with a changed label or answer",
        paper="Kurita et al. 2020, ACL, arXiv 2004.06660",
        needs=Needs(modality="text", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    words: Annotated[str, Field(pattern=r"\S")] = "cf mn bb tq mb"
    together: bool = False

    def stamp(self, text: str, rng: np.random.Generator) -> str:
        """The text with one of the words, or all."""
        words = self.words.split()
        for word in words if self.together else (str(rng.choice(words)),):
            text = insert(text, word, rng)
        return text

    def half_stamp(self, text: str, rng: np.random.Generator) -> str | None:
        """All words but one, where they count together."""
        words = self.words.split()
        if not self.together or len(words) < 2:
            return None
        out = int(rng.integers(len(words)))
        for place, word in enumerate(words):
            text = text if place == out else insert(text, word, rng)
        return text
