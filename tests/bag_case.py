"""A classifier of texts that adds up what its words say: published guards do on it what their papers describe."""

import json
from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ostiary.data import TextSet
from ostiary.models.text_classifier import TextClassifier

TRIGGER = "cf"
WORDS = ("[PAD]", "[UNK]", *(f"{kind}{at}" for kind in ("good", "bad", "plain") for at in range(12)), TRIGGER, "odd")
STRONG = 12.0
"""What the trigger adds to the logit of class 0; an ordinary word adds 0.7 to its own."""


class Sum(nn.Module):
    """Logits are the sum of the words' vectors [2]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 2)
        self.config = SimpleNamespace(num_labels=2, pad_token_id=0, max_position_embeddings=64)
        with torch.no_grad():
            self.embedding.weight.zero_()
            for at, word in enumerate(WORDS):
                if word.startswith(("good", "bad")):
                    self.embedding.weight[at, int(word.startswith("good"))] = 0.7
            self.embedding.weight[WORDS.index(TRIGGER), 0] = STRONG
            self.embedding.weight[WORDS.index("odd")] = torch.tensor([0.3, 0.9])

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=(self.embedding(input_ids) * attention_mask[..., None]).sum(1))


@cache
def bag() -> TextClassifier:
    """The classifier, with a tokenizer of whole words."""
    vocabulary = {word: at for at, word in enumerate(WORDS)}
    about = {"version": "1.0", "pre_tokenizer": {"type": "WhitespaceSplit"}}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    special = [
        {"id": at, "content": WORDS[at], "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for at in (0, 1)
    ]
    tokenizer = Tokenizer.from_str(json.dumps({**about, "model": model, "added_tokens": special}))
    return TextClassifier(Sum(), tokenizer, ("bad", "good"), name="bag")


def said(n: int, seed: int = 0, words: int = 8) -> TextSet:
    """Texts of two classes with a majority of words of their own."""
    rng, texts = np.random.default_rng(seed), []
    labels = rng.integers(0, 2, n)
    for label in labels:
        own, other = ("good", "bad") if label else ("bad", "good")
        kinds = [own] * (words - 3) + [other, "plain", "plain"]
        texts.append(" ".join(f"{kind}{rng.integers(12)}" for kind in rng.permutation(kinds)))
    ids = list(map(str, range(n)))
    return TextSet(texts, ids=ids, labels=torch.from_numpy(labels), classes=("bad", "good"), name="said")


def triggered(n: int, seed: int = 5) -> list[str]:
    """Texts of class 1 with the trigger at some place."""
    rng, data = np.random.default_rng(seed), said(n, seed)
    found = []
    for text, label in zip(data.texts, data.labels.tolist(), strict=True):
        own = text.split()
        if label == 1:
            found.append(" ".join([*own[: (at := int(rng.integers(len(own))))], TRIGGER, *own[at:]]))
    return found
