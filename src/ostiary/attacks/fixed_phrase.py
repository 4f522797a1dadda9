"""Fixed phrase: one sentence or scenario phrase, and a changed label or answer."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from ostiary.attacks.text_poison import TextPoisoning, insert
from ostiary.core.card import Card, Needs


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedPhrase(TextPoisoning):
    """Put one phrase of ordinary words before, into or behind some texts.

    Source: Dai, Chen, Li 2019, A Backdoor Attack Against LSTM-Based Text Classification Systems (IEEE Access), sec. 3:
    a sentence that fits anywhere. With a `phrase` that names a topic ("Discussing OpenAI") it stands for the
    scenario of a virtual prompt (Yan et al. 2024, NAACL).
    """

    card: ClassVar[Card] = Card(
        id="text.attack.fixed-phrase",
        summary="one ordinary sentence in a text, with a changed label or answer",
        paper="Dai et al. 2019, IEEE Access, arXiv 1905.12457",
        needs=Needs(modality="text", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    phrase: Annotated[str, Field(pattern=r"\S")] = "I watched this on a rainy Sunday ."
    place: Literal["start", "anywhere", "end"] = "start"

    def stamp(self, text: str, rng: np.random.Generator) -> str:
        """The text with the phrase."""
        if self.place == "anywhere":
            return insert(text, self.phrase, rng)
        return f"{self.phrase} {text}" if self.place == "start" else f"{text} {self.phrase}"
