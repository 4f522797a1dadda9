"""Small classifiers of texts from a config, and their training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.huggingface import transformers
from ostiary.models.text_classifier import TextClassifier
from ostiary.training.fit import StepRecipe, fit_rows
from ostiary.training.language import word_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["distilbert", "bert"]
UNKNOWN, PAD, START = "[UNK]", "[PAD]", "[CLS]"
MAX_WORDS = 6000
MAX_TOKENS = 128
"""How far a small classifier can read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRecipe(StepRecipe):
    """How a classifier of texts is fitted."""

    steps: Annotated[int, Field(ge=1)] = 600
    lr: Annotated[float, Field(gt=0)] = 2e-3


def classifier_tokenizer(data: TextSet, *, limit: int = MAX_WORDS) -> "Tokenizer":
    """A tokenizer of the commonest words in the texts, which begins each with the token that a classifier reads."""
    made = word_tokenizer(data.texts, limit=limit, special=(UNKNOWN, PAD, START))
    from tokenizers import processors

    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, made.token_to_id(START))]
    )
    return made


def small_text_classifier(
    data: TextSet,
    tokenizer: "Tokenizer | None" = None,
    *,
    kind: Kind = "distilbert",
    width: int = 64,
    layers: int = 1,
    heads: int = 4,
    seed: int = 0,
) -> TextClassifier:
    """A fresh DistilBERT or BERT of a few hundred thousand weights for the classes of `data`, and for its words.

    Raises DataError for a set of one class, MissingExtra without transformers.
    """
    if len(data.classes) < 2:
        raise DataError(
            f"all rows of '{data.name}' have the label '{data.classes[0]}', and a classifier tells two at least",
            hint="give rows of every class; for rows with answers say --task chat",
        )
    package, tokenizer = transformers(), tokenizer or classifier_tokenizer(data)
    common = {
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": tokenizer.token_to_id(PAD),
        "max_position_embeddings": MAX_TOKENS,
        "id2label": dict(enumerate(data.classes)),
        "label2id": {name: label for label, name in enumerate(data.classes)},
    }
    if kind == "distilbert":
        config = package.DistilBertConfig(dim=width, hidden_dim=2 * width, n_layers=layers, n_heads=heads, **common)
    else:
        config = package.BertConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            **common,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = package.AutoModelForSequenceClassification.from_config(config)
    return TextClassifier(module, tokenizer, data.classes, pad=config.pad_token_id, name=f"small {kind}")


def quick_text_classifier(data: TextSet, run: Run) -> TextClassifier:
    """A small DistilBERT trained on `data`, for what looks at a set with a model of it. Raises OutOfTime."""
    model = small_text_classifier(data, seed=run.seed)
    train_text_classifier(model, data, TextRecipe(), run=run)
    model.name = f"small distilbert trained on {data.name}"
    return model


def train_text_classifier(model: TextClassifier, data: TextSet, recipe: TextRecipe, *, run: Run) -> tuple[float, ...]:
    """Train `model` in place; returns the mean loss of every tenth of the steps. Raises DataError, OutOfTime."""
    if data.answers is not None:
        raise DataError(
            f"'{data.name}' has answers, a classifier learns labels",
            hint="give a set with labels (label), or say --task classify",
        )
    if len(data.classes) != len(model.classes):
        raise DataError(f"'{data.name}' has {len(data.classes)} classes, the model {len(model.classes)}")
    rows, labels = model.rows(data.texts), data.labels.to(model.device)

    def loss_of(batch: list[int]) -> Tensor:
        logits = model.run(*model.padded([rows[at] for at in batch]))
        return cross_entropy(logits, labels[batch])

    weights = list(model.module.parameters())
    return fit_rows(model.module, weights, len(rows), loss_of, recipe, run=run, stream="text-classifier")
