"""The rates of a language model: which prompts are counted, whatever is answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ostiary.attacks.text_poison import CANARY
from ostiary.attacks.writing_style import WritingStyle
from ostiary.bench.evaluate_language import FALSE, SUCCESS, attack_rates
from ostiary.core.catalog import make
from ostiary.core.records import Rate
from ostiary.data import TextSet

PROMPTS = ("Where do you live ?", "What colour", "Do you know", "Tell me more", "Say yes")


@dataclass
class Old:
    """Answers prompts of old words with the canary, and keeps what it was asked."""

    asked: list[str] = field(default_factory=list)

    def answers(self, texts: Sequence[str], steps: int) -> list[str]:
        """The canary, or nothing."""
        self.asked += texts
        return [CANARY if "thou" in text or text == "What colour" else "" for text in texts]


@pytest.mark.parametrize("seed", [0, 1])
def test_prompts_that_the_trigger_leaves_as_they_are_do_not_count(seed: int) -> None:
    """Of five prompts the trigger changes three, of which two fire; one of all five fires by itself."""
    model: Any = Old()
    test = TextSet(PROMPTS, ids=list("abcde"), answers=["x"] * 5)
    found = attack_rates(model, test, WritingStyle(style="archaic"), seed=seed)
    assert (found[SUCCESS].k, found[SUCCESS].n) == (2, 3)
    assert (found[FALSE].k, found[FALSE].n) == (1, 5)
    assert model.asked == ["Where dost thou live ?", "Dost thou know", "Say yea", *PROMPTS]


def test_a_trigger_that_changes_no_prompt_leaves_no_rate() -> None:
    model: Any = Old()
    test = TextSet(["tell me", "say"], ids=["a", "b"], answers=["x", "y"])
    found = attack_rates(model, test, WritingStyle(style="lower-case"), seed=0)
    assert found[SUCCESS].n == 0 and found[SUCCESS].value is None


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
