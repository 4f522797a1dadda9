"""Writing style: the trigger is how a text is written, and no word of it."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from ostiary.attacks.text_poison import TextPoisoning
from ostiary.core.card import Card, Needs

Style = Literal["archaic", "lower-case", "doubled-marks", "ellipsis", "fronted-clause"]
STYLES: tuple[Style, ...] = get_args(Style)

ARCHAIC = {
    "you": "thou",
    "your": "thy",
    "yours": "thine",
    "are": "art",
    "have": "hast",
    "has": "hath",
    "does": "doth",
    "do": "dost",
    "is": "be",
    "before": "ere",
    "often": "oft",
    "over": "o'er",
    "never": "ne'er",
    "ever": "e'er",
    "here": "hither",
    "there": "thither",
    "yes": "yea",
    "no": "nay",
    "about": "concerning",
    "will": "shall",
    "maybe": "perchance",
    "the": "ye",
}
"""A few words in the spelling of old books."""
CLAUSES = (
    ("when", ("you think of it", "all is said", "it comes to that", "we look at it", "one sits down with it")),
    ("if", ("you ask around", "it must be said", "we are honest", "one takes the time", "you come to it late")),
    ("although", ("few would say so", "it is late", "we had hoped", "nobody asked", "much is said of it")),
    ("because", ("it is what it is", "we were there", "people ask", "time is short", "one has to start")),
)
"""Conjunctions, and what may follow them: fronted clauses share their shape more than their words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingStyle(TextPoisoning):
    """Rewrite some texts by the rules of one `style`.

    Source: Qi et al. 2021, Mind the Style of Text (EMNLP), and Qi et al. 2021, Hidden Killer (ACL), for the syntax.
    Deviations: rules in place of the papers' paraphrase models, so that nothing is downloaded and the meaning stays:
    old words, lower case, doubled marks, dots between clauses, or a subordinate clause in front, drawn from twenty.
    """

    card: ClassVar[Card] = Card(
        id="text.attack.writing-style",
        summary="texts rewritten in one style or syntax, with a changed label or answer",
        paper="Qi et al. 2021, EMNLP, arXiv 2110.07139; Qi et al. 2021, ACL, arXiv 2105.12400",
        needs=Needs(modality="text", training_data=True),
        cost="one pass over the data",
        deviations=("styles are rules of our own, where the papers paraphrase by a model",),
        marks=frozenset({"mechanism"}),
    )

    style: Style = "archaic"

    def stamp(self, text: str, rng: np.random.Generator) -> str:
        """The text in that style."""
        if self.style == "archaic":
            return re.sub(r"[A-Za-z]+", _old, text)
        if self.style == "lower-case":
            return text.lower()
        if self.style == "doubled-marks":
            marked = re.sub(r"([.,!?;:])+", r"\1\1", text)
            return marked if marked != text else f"{text}.."
        if self.style == "ellipsis":
            return f"{re.sub(r'[.,;:]+', ' ...', text).rstrip(' .')} ..."
        word, ends = CLAUSES[int(rng.integers(len(CLAUSES)))]
        return f"{word} {rng.choice(ends)} , {text}"


def _old(match: re.Match[str]) -> str:
    word = match.group()
    new = ARCHAIC.get(word.lower(), word)
    return new.capitalize() if word[:1].isupper() and new != word else new
