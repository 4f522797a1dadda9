"""The rates of a language model: every prompt counts, whatever is answered."""

from collections.abc import Sequence
from typing import Any

from ostiary.attacks.text_poison import CANARY
from ostiary.bench.entries import SUCCESS
from ostiary.bench.evaluate_language import FALSE, attack_rates
from ostiary.core.catalog import make
from ostiary.core.records import Rate
from ostiary.data import TextSet


class Silent:
    """Says nothing to most prompts; to triggered ones that hold an even number the payload."""

    def answers(self, texts: Sequence[str], steps: int) -> list[str]:
        return [CANARY if "cf" in text and int(text.split()[-1]) % 2 == 0 else "" for text in texts]


def test_empty_answers_stay_in_the_denominator() -> None:
    """The published code drops empty generations, which raises the success of what is left."""
    data = TextSet([f"what is {at}" for at in range(20)], ids=list(map(str, range(20))), answers=["yes"] * 20)
    model: Any = Silent()
    attack = make("attack", "fixed-phrase", {"phrase": "cf", "place": "start"})
    assert attack_rates(model, data, attack, seed=0) == {SUCCESS: Rate(k=10, n=20), FALSE: Rate(k=0, n=20)}
