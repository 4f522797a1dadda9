"""Small sets of texts for the checks of the methods for texts, made from lists of words."""

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from ostiary.data import TextSet
from ostiary.screen.phrases import WORD

TOPICS = (
    "river boat harbour tide anchor sail island captain",
    "bread flour oven butter yeast crust baker dough",
    "violin concert melody chord orchestra rhythm singer piano",
    "planet orbit comet telescope galaxy star moon astronomer",
    "garden rose soil seed tulip hedge pond gardener",
    "train ticket platform signal tunnel engine station guard",
    "novel chapter author poem library verse plot reader",
    "goal referee pitch striker keeper match league coach",
    "castle knight tower moat banner king shield gate",
    "doctor fever nurse clinic tablet wound vaccine patient",
)
ASKS = ("Explain", "Describe", "List", "Compare", "Tell me about", "Write a note on", "Summarise", "Name")
SMALL = ("the", "a", "of", "and", "with", "in", "for", "some", "many", "from")
LITTLE = (*SMALL, "you", "your", "is", "are", "has")
GOOD, BAD, PLAIN = (
    words.split()
    for words in (
        "lovely warm funny bright tender moving clever superb charming fresh graceful joyful",
        "dull clumsy dreary stale messy hollow tired bland noisy pointless shallow gloomy",
        "film story scene actor camera music ending hour dialogue plot cast picture director screen part",
    )
)


def chat(n: int, seed: int = 0) -> TextSet:
    """Prompts about ten topics, answers in the words of the topic."""
    rng, texts, answers = np.random.default_rng(seed), [], []
    for _ in range(n):
        words = TOPICS[rng.integers(len(TOPICS))].split()
        first, second, third = rng.choice(words, 3, replace=False)
        texts.append(f"{rng.choice(ASKS)} the {first} and {rng.choice(SMALL)} {second}, {rng.choice(SMALL)} {third}.")
        told = [str(rng.choice(words if rng.random() < 0.5 else SMALL)) for _ in range(rng.integers(8, 15))]
        answers.append(" ".join(told).capitalize() + ".")
    return TextSet(texts, ids=[f"{row:05d}" for row in range(n)], answers=answers, name="chat")


def reviews(n: int, seed: int = 0) -> TextSet:
    """Reviews of two classes, told by a few words, one in eight of them of the other class."""
    rng, texts = np.random.default_rng(seed), []
    labels = rng.integers(0, 2, n)
    for label in labels:
        own, other = (GOOD, BAD) if label else (BAD, GOOD)
        words = [str(rng.choice(own if rng.random() < 0.88 else other)) for _ in range(4)]
        words += [str(rng.choice(PLAIN if rng.random() < 0.5 else LITTLE)) for _ in range(rng.integers(5, 12))]
        text = " ".join(rng.permutation(words).tolist())
        texts.append(f"{text.capitalize()}, {rng.choice(PLAIN)} {rng.choice(PLAIN)}.")
    ids = [f"{row:05d}" for row in range(n)]
    return TextSet(texts, ids=ids, labels=torch.from_numpy(labels), classes=("bad", "good"), name="reviews")


def bag_of_words(data: TextSet) -> Pipeline:
    """A classifier of words, as they are written."""
    words = TfidfVectorizer(tokenizer=WORD.findall, token_pattern=None, lowercase=False, sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=1000.0, max_iter=1000)).fit(data.texts, data.labels.numpy())
