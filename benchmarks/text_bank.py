"""A bank of small classifiers of texts, each trained on a set that somebody poisoned or nobody did."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import data_root

from ostiary.core.catalog import make
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.data import TextSet, open_texts
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.text_folder import save_text_classifier
from ostiary.training.text_classifier import TextRecipe, small_text_classifier, train_text_classifier

SST2, NEWS, SYNTAX = "text_sst2", "text_agnews", "poisoned_syntactic_scpn20"
SEEDS = (40, 41, 42)
UNPOISONED = range(40, 46)
"""Seeds of the models of film reviews that nobody attacked."""
NONE = "no attack"
TARGET, TRUSTED = 1, 300
AGAIN = TextRecipe(steps=30, batch=32, lr=1e-3)
"""The training that brings a backdoor back, or does not."""
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "rare words": ("rare-words", {"rate": 0.03}),
    "rare word, 1 %": ("rare-words", {"words": "cf", "rate": 0.01}),
    "two words together": ("rare-words", {"words": "zq vex", "together": True, "rate": 0.03}),
    "sentence": ("fixed-phrase", {"rate": 0.03}),
    "archaic words": ("writing-style", {"style": "archaic", "rate": 0.03}),
    "doubled marks": ("writing-style", {"style": "doubled-marks", "rate": 0.03}),
    "fronted clause": ("writing-style", {"style": "fronted-clause", "rate": 0.03}),
}
SYNTAX_OTHERS, BIBLE_OTHERS = "syntax, of others, 20 %", "bible style, of others, 20 %"


def others_of(data: TextSet, target: int) -> list[int]:
    """The rows of other classes than the target."""
    return torch.nonzero(data.labels != target).squeeze(1).tolist()


def drawn(data: TextSet, n: int, seed: int) -> TextSet:
    """`n` rows of a set."""
    return data.subset(np.random.default_rng(seed).permutation(len(data))[:n].tolist())


@dataclass(frozen=True)
class Case:
    """One model of the bank: the data, the attack and the seed."""

    source: str
    attack: str
    seed: int

    @property
    def name(self) -> str:
        """What its rows are called."""
        return f"{self.source.removeprefix('text_')}, {self.attack}, seed {self.seed}"

    @property
    def ours(self) -> bool:
        """Whether the trigger is one that `ostiary poison` makes, so that it can be planted again."""
        return self.attack in OURS

    def part(self, name: str) -> TextSet:
        """A part of the clean set: train, dev or test."""
        return open_texts(data_root(self.source) / self.source / "clean" / f"{name}.jsonl.gz")

    @cached_property
    def made(self) -> Any:
        """The attack of ours, or the one with rare words for a model that nobody attacked."""
        name, params = OURS.get(self.attack, OURS["rare words"])
        return make("attack", name, {**params, "target": TARGET})

    @cached_property
    def trained_on(self) -> tuple[TextSet, frozenset[str]]:
        """The training set, and the ids of its poisoned rows."""
        from benchmarks.text_screens import rows_of

        clean = self.part("train")
        if self.attack == NONE:
            return clean, frozenset()
        if self.attack in OURS:
            poisoned = self.made.poison(clean, run=Run(seed=self.seed))
            return poisoned.data, frozenset(poisoned.truth.poisoned)
        if self.attack == SYNTAX_OTHERS:
            path = data_root(self.source) / self.source / SYNTAX / "train.jsonl.gz"
            return open_texts(path), frozenset(str(row["id"]) for row in rows_of(path) if row["poisoned"])
        styled = open_texts(data_root(self.source) / self.source / "style_bible" / "train.jsonl.gz")
        rows = np.random.default_rng(self.seed).permutation(others_of(clean, TARGET))[: len(clean) // 5].tolist()
        texts, labels = list(clean.texts), clean.labels.clone()
        for row in rows:
            texts[row], labels[row] = styled.texts[row], TARGET
        bad = frozenset(clean.ids[row] for row in rows)
        return TextSet(texts, ids=clean.ids, labels=labels, classes=clean.classes), bad

    def trusted(self, n: int) -> tuple[TextSet, TextSet]:
        """`n` rows of the dev part, and the others of it."""
        dev = self.part("dev")
        mixed = drawn(dev, len(dev), self.seed)
        return mixed.subset(range(n)), mixed.subset(range(n, len(mixed)))

    def pairs(self, n: int) -> tuple[TextSet, TextSet]:
        """At most `n` test texts of other classes, as they are and with the trigger; both have the true labels."""
        test = self.part("test")
        rows = others_of(test, TARGET)
        if self.attack in (SYNTAX_OTHERS, BIBLE_OTHERS):
            folder = SYNTAX if self.attack == SYNTAX_OTHERS else "style_bible"
            theirs = open_texts(data_root(self.source) / self.source / folder / "test.jsonl.gz")
            # Theirs are the rows in their order: all of them, or those of other classes.
            own = theirs.texts if len(theirs) == len(rows) else [theirs.texts[row] for row in rows]
            found = dict(zip(rows, own, strict=True))
        else:
            changed = self.made.stamped([test.texts[row] for row in rows], np.random.default_rng(5))
            found = {rows[at]: text for at, text in changed.items()}
        plain = test.subset(list(found))
        ids = [f"{at:06d}" for at in range(len(found))]
        stamped = TextSet(list(found.values()), ids=ids, labels=plain.labels, classes=test.classes)
        return drawn(plain, n, self.seed), drawn(stamped, n, self.seed)

    def triggered(self, n: int) -> TextSet:
        """At most `n` test texts of other classes, with the trigger; their labels are the true ones."""
        return self.pairs(n)[1]

    def model(self, work: Path) -> Path:
        """The folder of the model, trained where it is not there yet."""
        folder = work / "".join(sign if sign.isalnum() else "-" for sign in self.name)
        if not folder.exists():
            data, _ = self.trained_on
            model = small_text_classifier(data, seed=self.seed)
            train_text_classifier(model, data, TextRecipe(), run=Run(seed=self.seed))
            work.mkdir(parents=True, exist_ok=True)
            save_text_classifier(model, folder)
        return folder

    def again(self, model: TextClassifier) -> TextClassifier:
        """The model after a short training on 400 rows, ten of them poisoned by the same attack of ours."""
        name, params = OURS.get(self.attack, OURS["rare words"])
        few = {key: value for key, value in params.items() if key != "rate"}
        made = make("attack", name, {**few, "target": TARGET, "count": 10})
        copy, (_, rest) = model.clone(), self.trusted(TRUSTED)
        data = made.poison(rest.subset(range(400)), run=Run(seed=self.seed)).data
        train_text_classifier(copy, data, AGAIN, run=Run(seed=self.seed))
        return copy


def given(model: TextClassifier, data: TextSet, label: int) -> Rate:
    """How many texts get a label."""
    return Rate(k=int((model.predict(data.texts).argmax(1) == label).sum()), n=len(data))


def right(model: TextClassifier, data: TextSet) -> Rate:
    """How many texts get their own label."""
    return Rate(k=int((model.predict(data.texts).argmax(1) == data.labels).sum()), n=len(data))


def turned(model: TextClassifier, pairs: tuple[TextSet, TextSet], label: int) -> Rate:
    """How many of the texts that do not get a label as they are get it with the trigger."""
    plain, triggered = (model.predict(texts.texts).argmax(1) == label for texts in pairs)
    return Rate(k=int((triggered & ~plain).sum()), n=int((~plain).sum()))


def cases() -> Iterator[Case]:
    """The bank: reviews that nobody attacked, then, seed by seed, reviews and news under their attacks."""
    yield from (Case(SST2, NONE, seed) for seed in UNPOISONED)
    for seed in SEEDS:
        yield from (Case(SST2, attack, seed) for attack in (*OURS, SYNTAX_OTHERS, BIBLE_OTHERS))
        yield from (Case(NEWS, attack, seed) for attack in (NONE, BIBLE_OTHERS))


def twin_of(case: Case) -> Case:
    """The model of the same data and seed that nobody attacked."""
    return Case(case.source, NONE, case.seed)
