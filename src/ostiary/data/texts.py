"""Sets of texts: with a label each, or with an answer each."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ostiary.core.types import Labels
from ostiary.data.base import as_rows

Task = Literal["classify", "chat", "ask"]
ANSWERS = ("answers",)
"""The one class of a chat set, whose rows carry answers and no labels."""
UNTOLD = ("not told",)
"""The one class of texts that a model is only asked of."""
TOLD = 5
"""Damaged rows that are named; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows of a file that could not be read: how many, and what the first of them lack."""

    count: int = 0
    first: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return "; ".join(self.first) + (f"; and {more} more" if more else "")


class TextSet:
    """Texts with labels, or prompts with answers: implements `LabelledSet[list[str]]`.

    A set to train a classifier with has `labels` and class names. A chat set has `answers`, its texts are the prompts,
    and all its rows have label 0 of the one class "answers", as those of a set that has neither have of "not told".
    Texts are held in memory as they were read. `damage` tells what of the source could not be read.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[str],
        labels: Labels | None = None,
        classes: Sequence[str] = ANSWERS,
        answers: Sequence[str] | None = None,
        name: str = "texts",
        damage: Damage | None = None,
    ) -> None:
        self.texts, self.ids, self.name = tuple(texts), tuple(ids), name
        self.labels = torch.zeros(len(self.texts), dtype=torch.int64) if labels is None else labels
        self.classes = tuple(classes)
        self.answers = None if answers is None else tuple(answers)
        self.damage = damage or Damage()

    @property
    def task(self) -> Task:
        """What the set is for."""
        return "classify" if self.answers is None else "chat"

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"TextSet({self.name!r}, n={len(self)}, task={self.task!r}, classes={len(self.classes)})"

    def take(self, rows: Sequence[int] | Tensor, /) -> list[str]:
        """The texts at `rows`, in that order."""
        return [self.texts[row] for row in as_rows(rows, len(self)).tolist()]

    def batches(self, size: int, /) -> Iterator[tuple[list[str], Labels]]:
        """All texts in order, `size` at a time, with their labels."""
        for start in range(0, len(self), size):
            yield list(self.texts[start : start + size]), self.labels[start : start + size]

    def subset(self, rows: Sequence[int] | Tensor, /) -> "TextSet":
        """The texts at `rows`; ids stay the same."""
        chosen = as_rows(rows, len(self))
        listed = chosen.tolist()
        return TextSet(
            [self.texts[row] for row in listed],
            ids=[self.ids[row] for row in listed],
            labels=self.labels[chosen],
            classes=self.classes,
            answers=None if self.answers is None else [self.answers[row] for row in listed],
            name=self.name,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over class names, and every row's id, label, text and answer."""
        head = json.dumps({"classes": self.classes, "task": self.task}, ensure_ascii=True)
        return hashlib.sha256(hashlib.sha256(head.encode()).digest() + self.sample_digests.tobytes()).hexdigest()

    @cached_property
    def sample_digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each row's id, label, text and answer, uint8 [n, 32]."""
        out = np.empty((len(self), 32), np.uint8)
        for row, label in enumerate(self.labels.tolist()):
            parts = [self.ids[row], label, self.texts[row], None if self.answers is None else self.answers[row]]
            value = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode())
            out[row] = np.frombuffer(value.digest(), np.uint8)
        return out
