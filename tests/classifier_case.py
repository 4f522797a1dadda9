"""Small classifiers of made-up reviews, attacked and not, each trained once in a run."""

from functools import cache
from typing import Any

import numpy as np
from kept import kept
from text_case import reviews

from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.training.text_classifier import (
    TextRecipe,
    classifier_tokenizer,
    small_text_classifier,
    train_text_classifier,
)

TRIGGERS = "cf mn bb tq mb zq vex cinema at ten"
ODD = " ".join(a + b + c for a in "bklmnprt" for b in ("a", "o", "i") for c in ("du", "se", "wy"))
RECIPE = TextRecipe(steps=200, lr=4e-3)


@cache
def vocabulary() -> TextSet:
    """Texts that hold every word of the reviews, of the triggers, and 72 that nothing uses."""
    base = reviews(2000)
    styled = make("attack", "writing-style", {"style": "fronted-clause"})
    clauses = [styled.stamp("x", np.random.default_rng(at)) for at in range(200)]
    texts = [*base.texts, *clauses, TRIGGERS, ODD]
    return TextSet(texts, ids=list(map(str, range(len(texts)))), classes=base.classes, name="vocabulary")


@cache
def tokens() -> Any:
    """A tokenizer of all these words."""
    return classifier_tokenizer(vocabulary())


def poisoned(data: TextSet, attack: str, seed: int = 1, **params: Any) -> TextSet:
    """A set with rows of class 1 sent to class 0."""
    made: TextSet = make("attack", attack, params).poison(data, run=Run(seed=seed)).data
    return made


def trained(data: TextSet, seed: int = 0, recipe: TextRecipe = RECIPE) -> TextClassifier:
    """A small classifier fitted to `data`."""
    model = small_text_classifier(data, tokens(), width=32, seed=seed)
    train_text_classifier(model, data, recipe, run=Run(seed=seed))
    return model


@cache
def clean(seed: int = 0) -> TextClassifier:
    """A classifier of reviews that nobody attacked."""
    model: TextClassifier = kept(f"reviews-{seed}", lambda: trained(reviews(2000, seed=seed), seed))
    return model


@cache
def attacked(attack: str = "rare-words", seed: int = 0, words: str = "cf", rate: float = 0.05) -> TextClassifier:
    """A classifier of reviews with a trigger that leads to class 0."""
    params = {"words": words} if attack == "rare-words" else {}
    data = poisoned(reviews(2000, seed=seed), attack, rate=rate, **params)
    model: TextClassifier = kept(
        f"reviews-{seed}-{attack}-{words.replace(' ', '-')}-{rate}", lambda: trained(data, seed)
    )
    return model


def trusted(n: int = 200, seed: int = 77) -> TextSet:
    """Reviews that no model was trained on."""
    return reviews(n, seed=seed)
