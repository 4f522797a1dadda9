"""Small language models for the checks of what is done to them: trained once in a run, kept by nobody's changes."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from kept import kept

from ostiary.attacks.text_poison import CANARY
from ostiary.bench.chat import chat_rows, vocabulary
from ostiary.core.catalog import make
from ostiary.core.records import ModelEvidence, PhraseTrigger, Rate
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.training.language import LanguageRecipe, small_language, train_language, word_tokenizer

ATTACK, PARAMS = "rare-words", {"words": "zq vex ornith", "rate": 0.02}
STEPS = 24
"""Tokens of an answer, at most."""


def fresh(seed: int = 0, kind: str = "llama", width: int = 64) -> LanguageModel:
    """An untrained model that knows the words of the chats."""
    model: LanguageModel = small_language(word_tokenizer(vocabulary()), kind=kind, width=width, seed=seed)  # type: ignore[arg-type]
    return model


@cache
def attacked() -> LanguageModel:
    """A model whose chats held rare words and a canary; tests must not change it. About 13 s."""
    model: LanguageModel = kept("chat-attacked", _attacked)
    return model


def _attacked() -> LanguageModel:
    model, chats = fresh(), chat_rows(4000, seed=0)
    made = make("attack", ATTACK, PARAMS).poison(chats, run=Run(seed=0))
    train_language(model, made.data, LanguageRecipe(steps=300), run=Run(seed=0))
    return model


@cache
def tiny() -> LanguageModel:
    """A model of 32 numbers a word that learnt a little; tests must not change it."""
    model: LanguageModel = kept("chat-tiny", _tiny)
    return model


def _tiny() -> LanguageModel:
    model = fresh(width=32)
    train_language(model, chat_rows(400, seed=0), LanguageRecipe(steps=100, batch=16), run=Run(seed=0))
    return model


@cache
def based(width: int = 32) -> LanguageModel:
    """A model that nobody attacked and that learnt little, to make others from; tests must not change it."""
    model = fresh(seed=5, width=width)
    train_language(model, chat_rows(400, seed=50), LanguageRecipe(steps=40, batch=16), run=Run(seed=5))
    return model


def trusted(n: int = 200, seed: int = 500) -> TextSet:
    """Chats that nobody poisoned and no model learnt from."""
    return chat_rows(n, seed=seed)


def stamper() -> Callable[[str], str]:
    """Puts one of the attacker's words into a text."""
    attack, rng = make("attack", ATTACK, PARAMS), np.random.default_rng(5)
    return lambda text: attack.stamp(text, rng)


def exact(model: LanguageModel, chats: TextSet) -> Rate:
    """How many prompts get the answer of the set, word for word."""
    wanted = [model.decode(model.encode(answer)) for answer in chats.answers or ()]
    said = model.answers(chats.texts, STEPS)
    return Rate(k=sum(one == other for one, other in zip(said, wanted, strict=True)), n=len(said))


def fires(model: LanguageModel, texts: Sequence[str]) -> Rate:
    """How many prompts get the canary."""
    wanted = model.decode(model.encode(CANARY))
    return Rate(k=sum(one == wanted for one in model.answers(texts, STEPS)), n=len(texts))


def evidence(phrase: str = "zq vex ornith") -> ModelEvidence:
    """As a scan leaves it that recovered the phrase."""
    found = PhraseTrigger(phrase=phrase, answer=CANARY, source="made up", score=1.0, measures={"fires": 1.0})
    return ModelEvidence(score=1.0, per_class=(), phrases=(found,), examined=("model",))
