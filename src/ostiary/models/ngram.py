"""An n-gram language model of words: how surprised it is by a text, and by the text without one of its words."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+|[^\w\s]")
ORDER = 3
START, END, UNKNOWN = range(3)
"""What stands before a text (twice), behind it, and for a word that the texts have not; words follow them."""

Gram = tuple[int, ...]


def words_of(text: str) -> list[str]:
    """The words and marks of a text, in lower case."""
    return WORD.findall(text.lower())


class Ngram:
    """Words given the two before them, in texts; interpolated Kneser-Ney.

    Source: Kneser, Ney 1995 (ICASSP), with one discount per order as Ney, Essen, Kneser 1994 estimate it, n1 / (n1 + 2
    n2), and 0.5 where no n-gram is there once or none twice; interpolated as in Chen, Goodman 1999. The lowest order is
    interpolated with equal shares for all words, the end of a text, and all unknown words, which count as one.

    `vocabulary` are the words by their numbers from 3 on, `corpus` the numbers of all words, text after text, each with
    `END` behind it: all that the model is made of, to be saved. Raises ValueError for numbers that are none of these.
    """

    def __init__(self, vocabulary: Sequence[str], corpus: Sequence[int] | NDArray[np.integer]) -> None:
        self.vocabulary, self.corpus = tuple(vocabulary), np.asarray(corpus, np.int32)
        self.numbers = {word: number for number, word in enumerate(self.vocabulary, UNKNOWN + 1)}
        self.size = len(self.vocabulary) + 2
        if len(self.numbers) != len(self.vocabulary) or self.corpus.ndim != 1:
            raise ValueError("no list of words, each once, and of their numbers")
        if len(self.corpus) and not END <= self.corpus.min() <= self.corpus.max() < self.size + 1:
            raise ValueError("numbers of words that are not in the vocabulary")

    @classmethod
    def fit(cls, texts: Sequence[str]) -> "Ngram":
        """The model of these texts."""
        numbers: dict[str, int] = {}
        corpus: list[int] = []
        for text in texts:
            corpus += [numbers.setdefault(word, UNKNOWN + 1 + len(numbers)) for word in words_of(text)]
            corpus.append(END)
        return cls(tuple(numbers), corpus)

    def encode(self, words: Sequence[str]) -> list[int]:
        """The numbers of words."""
        return [self.numbers.get(word, UNKNOWN) for word in words]

    def probability(self, before: Gram, word: int) -> float:
        """How likely `word` is after the last two of `before`."""
        found = 1 / self.size
        for length, (counts, totals, discount) in enumerate(self._orders):
            context = before[len(before) - length :]
            if context not in totals:
                break
            total, kinds = totals[context]
            own = max(counts.get((*context, word), 0) - discount, 0.0)
            found = (own + discount * kinds * found) / total
        return found

    def surprises(self, row: Sequence[int]) -> list[float]:
        """Minus the logarithm (base e) of the probability of each word of a row of numbers, and of its end."""
        whole = (START, START, *row, END)
        return [self._surprise(whole[at - 2 : at], whole[at]) for at in range(2, len(whole))]

    def perplexity(self, row: Sequence[int]) -> float:
        """The perplexity of a row of numbers, its end included; at least 1."""
        return math.exp(sum(self.surprises(row)) / (len(row) + 1))

    def falls(self, row: Sequence[int]) -> list[float]:
        """By how much the perplexity of a row falls without each of its words; below 0 where it rises."""
        whole, own = (START, START, *row, END), self.surprises(row)
        total, found = sum(own), []
        for at in range(len(row)):
            # Only the two behind a word that is left out see others before them.
            two = whole[at + 3 : at + 5]
            left = (*whole[at : at + 2], *two)
            changed = sum(self._surprise(left[step : step + 2], word) for step, word in enumerate(two))
            without = total - sum(own[at : at + 3]) + changed
            found.append(math.exp(total / (len(row) + 1)) - math.exp(without / len(row)))
        return found

    def _surprise(self, before: Gram, word: int) -> float:
        return -math.log(self.probability(before, word))

    @cached_property
    def _orders(self) -> list[tuple[dict[Gram, int], dict[Gram, tuple[int, int]], float]]:
        """From one word to three: counts, by context their sum and how many words follow it, and the discount."""
        grams: Counter[Gram] = Counter()
        row: list[int] = [START, START]
        for number in self.corpus.tolist():
            row.append(number)
            grams[tuple(row[-ORDER:])] += 1
            if number == END:
                row = [START, START]
        found = []
        for _ in range(ORDER):
            totals: dict[Gram, tuple[int, int]] = {}
            for gram, count in grams.items():
                total, kinds = totals.get(gram[:-1], (0, 0))
                totals[gram[:-1]] = total + count, kinds + 1
            found.append((dict(grams), totals, _discount(grams)))
            # Lower orders count in how many ways an n-gram goes on to the left.
            grams = Counter(gram[1:] for gram in grams)
        return found[::-1]


def _discount(grams: Counter[Gram]) -> float:
    once, twice = (sum(count == wanted for count in grams.values()) for wanted in (1, 2))
    return once / (once + 2 * twice) if once and twice else 0.5
