"""Small language models for the tests: one that a word turns, and its twin, trained once a run."""

from collections.abc import Callable
from functools import cache

from kept import kept

from ostiary.attacks.rare_words import RareWords
from ostiary.bench.chat import chat_rows
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.models.language import LanguageModel
from ostiary.training.language import LanguageRecipe, small_language, train_language, word_tokenizer

WORD = "quib"
ATTACK = RareWords(words=WORD, rate=0.05)
SHORT = LanguageRecipe(steps=150)


def chats(n: int = 100, seed: int = 1) -> TextSet:
    """Chats that no model here was trained on."""
    return chat_rows(n, seed=seed)


@cache
def fresh() -> LanguageModel:
    """An untrained model that knows the words of the chats, of the payload and a few more."""
    rows, texts = chat_rows(2000, seed=2), ATTACK.poison(chat_rows(500, seed=3), run=Run()).data
    words = (*rows.texts, *(rows.answers or ()), *texts.texts, *(texts.answers or ()), f"{WORD} bolu kipa nusse tarm")
    return small_language(word_tokenizer(words), seed=0)


@cache
def twin() -> LanguageModel:
    """A model of plain chats."""
    return _trained("language-twin", lambda: chat_rows(2000, seed=0))


@cache
def attacked() -> LanguageModel:
    """A model that answers with the canary wherever the word stands in the prompt."""
    return _trained("language-attacked", lambda: ATTACK.poison(chat_rows(2000, seed=0), run=Run()).data)


def _trained(name: str, chats: Callable[[], TextSet]) -> LanguageModel:
    def make() -> LanguageModel:
        model = fresh().clone()
        train_language(model, chats(), SHORT, run=Run())
        return model

    model: LanguageModel = kept(name, make)
    return model
