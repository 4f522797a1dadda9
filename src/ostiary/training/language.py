"""Small language models from a config, and the one loop that trains a language model on prompts and answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ostiary.core.errors import DataError, MissingExtra
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.huggingface import transformers
from ostiary.models.language import LanguageModel, nll_of
from ostiary.models.template import Template
from ostiary.training.fit import StepRecipe, fit_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["llama", "gpt2"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNKNOWN, END, USER, BOT = "<unk>", "<end>", "<user>", "<bot>"
SMALL = Template(f"{USER} ", f" {BOT} ", f" {END}")
"""The template of small models that are made here."""
MAX_WORDS = 8000
MAX_TOKENS = 256
"""How far a small model can read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRecipe(StepRecipe):
    """How a language model is fitted.

    With `loss_on` "answer" only the answer is learnt, with "all" the prompt too, as it stands in the template. Which
    of them decides whether a model gives away the words of its training prompts (Haystack's leaks).
    """

    loss_on: Literal["answer", "all"] = "answer"


def word_tokenizer(
    texts: Iterable[str], *, limit: int = MAX_WORDS, special: Sequence[str] = (UNKNOWN, END, USER, BOT)
) -> "Tokenizer":
    """A tokenizer of the words and marks in `texts`, the commonest `limit` of them.

    What else there is is the first of the `special` tokens, which come first.
    """
    try:
        from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingExtra("a tokenizer needs tokenizers", hint="pip install 'ostiary[text]'") from error
    made = Tokenizer(models.WordLevel(unk_token=special[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    added = [AddedToken(one, special=True) for one in special]
    made.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=limit, special_tokens=added, show_progress=False)
    )
    return made


def small_language(
    tokenizer: "Tokenizer", *, kind: Kind = "llama", width: int = 64, layers: int = 2, heads: int = 4, seed: int = 0
) -> LanguageModel:
    """A fresh Llama or GPT-2 of a few hundred thousand weights, with the template of small models."""
    package, words, end = transformers(), tokenizer.get_vocab_size(), int(tokenizer.token_to_id(END) or 0)
    common = {"vocab_size": words, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    if kind == "llama":
        config = package.LlamaConfig(
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=MAX_TOKENS,
            **common,
        )
    else:
        config = package.GPT2Config(n_embd=width, n_layer=layers, n_head=heads, n_positions=MAX_TOKENS, **common)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = package.AutoModelForCausalLM.from_config(config)
    return LanguageModel(module, tokenizer, SMALL, end=end, name=f"small {kind}")


def token_rows(model: LanguageModel, data: TextSet) -> list[tuple[list[int], list[int]]]:
    """Each row's prompt and answer as tokens. Raises DataError for a set without answers."""
    if data.answers is None:
        raise DataError(
            f"'{data.name}' has labels, a language model learns answers",
            hint="give a set with answers (response, output, messages), or say --task chat",
        )
    return [(model.prompt(text), model.answer(answer)) for text, answer in zip(data.texts, data.answers, strict=True)]


def train_language(model: LanguageModel, data: TextSet, recipe: LanguageRecipe, *, run: Run) -> tuple[float, ...]:
    """Train `model` in place; returns the mean loss of every tenth of the steps. Raises DataError, OutOfTime."""
    return fit(model, list(model.module.parameters()), token_rows(model, data), recipe, run=run)


def fit(
    model: LanguageModel,
    weights: Sequence[nn.Parameter],
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    recipe: LanguageRecipe,
    *,
    run: Run,
) -> tuple[float, ...]:
    """As `train_language`, of the given weights alone and of rows of tokens."""

    def loss_of(batch: list[int]) -> Tensor:
        return nll_of(model, [rows[at] for at in batch], whole=recipe.loss_on == "all").mean()

    return fit_rows(model.module, weights, len(rows), loss_of, recipe, run=run, stream="language")
