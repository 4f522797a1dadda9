"""The search for words that lead a language model away from its own answers, or to a given one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ostiary.core.run import Run
from ostiary.models.language import LanguageModel
from ostiary.scan.firing import spliced

CHUNK = 128
"""Rows that are scored at once."""
ROUNDS = 2
"""Times that each word of a phrase is exchanged."""


@dataclass(slots=True)
class PhraseSearch:
    """Phrases in front of a few prompts, scored by what becomes of the likelihood of an answer.

    Without an `aim` the answers are the model's own to each prompt, and a phrase is good that makes them unlikely; with
    one it is good where that answer becomes likely behind every prompt. Scores are in nats a token, higher is better.
    """

    model: LanguageModel
    texts: tuple[str, ...]
    own: tuple[tuple[int, ...], ...]
    run: Run
    aim: str | None = None
    singles: tuple[str, ...] = ()
    ranked: dict[str, tuple[float, str]] = field(default_factory=dict)

    @torch.no_grad()
    def scores(self, phrases: Sequence[str]) -> NDArray[np.float64]:
        """The score of each phrase, float64 [n]. Raises OutOfTime."""
        model, n = self.model, len(self.texts)
        aim = None if self.aim is None else tuple(model.encode(self.aim))
        per = max(1, CHUNK // n)
        out: list[float] = []
        for start in range(0, len(phrases), per):
            self.run.step(start, len(phrases), "phrases")
            some = phrases[start : start + per]
            rows = [
                (model.prompt(spliced(phrase, text)), own if aim is None else aim)
                for phrase in some
                for text, own in zip(self.texts, self.own, strict=True)
            ]
            out += model.losses(rows).view(len(some), n).mean(dim=1).tolist()
        return np.asarray(out, np.float64) * (1 if aim is None else -1)

    def consider(self, phrases: Sequence[str], source: str) -> None:
        """Score phrases that were not scored before."""
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self.ranked]
        for phrase, score in zip(new, self.scores(new).tolist(), strict=True):
            self.ranked[phrase] = (score, source)

    def best(self, count: int, *, words: int | None = None) -> list[str]:
        """The best phrases so far, of fewer than `words` words where that is given."""
        allowed = [one for one in self.ranked if words is None or len(one.split()) < words]
        return sorted(allowed, key=lambda phrase: -self.ranked[phrase][0])[:count]

    def extend(self, width: int, words: int) -> None:
        """Add every word to the best `width` phrases, up to `words` words, as long as the best becomes better."""
        for _ in range(1, words):
            (top,) = self.best(1)
            before = self.ranked[top][0]
            beam = self.best(width, words=words)
            self.consider([f"{phrase} {single}" for phrase in beam for single in self.singles], "extended")
            if max(score for score, _ in self.ranked.values()) <= before:
                return

    def sharpened(self, phrase: str) -> str:
        """The phrase with each of its words exchanged for the best one, twice round."""
        words = phrase.split()
        highest = float(self.scores([phrase])[0])
        exchanged = -1
        for at in range(ROUNDS * len(words)):
            place = at % len(words)
            if at - exchanged > len(words):  # a whole round without gain
                break
            options = [" ".join([*words[:place], single, *words[place + 1 :]]) for single in self.singles]
            found = self.scores(options)
            if float(found.max()) > highest:
                highest, words[place], exchanged = float(found.max()), self.singles[int(found.argmax())], at
        return " ".join(words)
