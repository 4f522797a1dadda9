"""The train verb for language models: a small one from a config, or a further fit of one that there is."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ostiary.core.card import Card, Have, Needs
from ostiary.core.errors import DataError
from ostiary.core.execute import params_of
from ostiary.core.files import refuse_existing
from ostiary.core.records import Rate, RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data.text_files import open_texts
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.models.adapter import Adapted, Adapter, save_adapter
from ostiary.models.language import LanguageModel
from ostiary.models.text_folder import save_language
from ostiary.training.language import Kind, LanguageRecipe, small_language, train_language, word_tokenizer
from ostiary.training.lora import AdapterTraining

EXACT = "exact match"
ANSWER_STEPS = 64
"""Tokens of an answer that is held against the right one."""


@dataclass(frozen=True, slots=True)
class LanguageTraining:
    """Training of a language model with one recipe, as a method that `execute` can run."""

    card: ClassVar[Card] = Card(
        id="text.training.train",
        summary="AdamW under a OneCycle schedule",
        paper="Loshchilov, Hutter 2019, arXiv 1711.05101",
        needs=Needs(modality="text", training_data=True),
        cost="steps x batch forward and backward passes",
    )

    recipe: LanguageRecipe

    def train(self, model: LanguageModel, data: TextSet, /, *, run: Run) -> tuple[float, ...]:
        """Train `model` in place."""
        return train_language(model, data, self.recipe, run=run)


def steps_of(epochs: int, rows: int, batch: int) -> int:
    """How many batches so many passes over the rows are."""
    return math.ceil(epochs * rows / batch)


def exact_match(model: LanguageModel, test: TextSet) -> Rate:
    """How many prompts get the very answer of the set, as tokens; an empty answer counts as any other.

    Answers are followed as far as the longest right one goes, with the token that ends it, and no further than 64.
    """
    wanted = [model.answer(answer) for answer in test.answers or ()]
    given = model.answers(test.texts, min(ANSWER_STEPS, max(map(len, wanted), default=1)))
    right = [model.decode(answer) for answer in wanted]
    return Rate(k=sum(one == other for one, other in zip(given, right, strict=True)), n=len(right))


def train_language_model(
    data: TextSet | Path,
    out: Path,
    *,
    base: LanguageModel | None = None,
    kind: Kind = "llama",
    width: int | None = None,
    recipe: LanguageRecipe | None = None,
    test: TextSet | None = None,
    options: Options | None = None,
) -> Record:
    """Train a small language model on the chats of `data`, or `base` further, and write the folder `out`.

    A small one gets a tokenizer of the words in `data`. Raises DataError for sets without answers, OutputError for an
    `out` that exists.
    """
    options, recipe = options or Options(), recipe or LanguageRecipe()
    data = _opened(data, test, out)
    if base is None:
        tokenizer = word_tokenizer((*data.texts, *(data.answers or ())))
        model = small_language(tokenizer, kind=kind, seed=options.seed, **({} if width is None else {"width": width}))
    else:
        model = base.clone()
    config = {"recipe": params_of(recipe), "task": "chat"}
    session = start("train", model.to(options.device), options, config, [LanguageTraining.card.id], data=data)
    if base is not None:
        session.digests["base"] = base.digest

    def summarise(losses: tuple[float, ...], run: Run) -> RatesEvidence:
        del run
        rates = {} if test is None else {EXACT: exact_match(model, test)}
        return RatesEvidence(rates=rates, measures={"final loss": losses[-1]})

    have = Have(modality="text", training_data=True)
    outcome = session.execute(LanguageTraining(recipe), model, data, have=have, summarise=summarise, call="train")
    if outcome.value is not None:
        save_language(model, out, notes={"trained_on": data.digest})
        session.config["out"] = str(out)
        session.digests["model"] = model.digest
    return session.finish()


def train_language_adapter(
    data: TextSet | Path,
    out: Path,
    base: LanguageModel,
    *,
    rank: int = 8,
    recipe: LanguageRecipe | None = None,
    test: TextSet | None = None,
    options: Options | None = None,
) -> Record:
    """Train a LoRA adapter of `base` on the chats of `data` and write it as the folder `out`; `base` is untouched.

    Raises as `train_language_model`, and ConfigError as `train_adapter`.
    """
    options, recipe = options or Options(), recipe or LanguageRecipe()
    data = _opened(data, test, out)
    base = base.to(options.device)
    config = {"recipe": params_of(recipe), "rank": rank, "task": "chat"}
    session = start("train", base, options, config, [AdapterTraining.card.id], data=data)

    def summarise(value: tuple[Adapter, tuple[float, ...]], run: Run) -> RatesEvidence:
        del run
        rates = {} if test is None else {EXACT: exact_match(Adapted(base, value[0]), test)}
        return RatesEvidence(rates=rates, measures={"final loss": value[1][-1]})

    method, have = AdapterTraining(recipe, rank), Have(modality="text", training_data=True)
    outcome = session.execute(method, base, data, out.name, have=have, summarise=summarise, call="train")
    if outcome.value is not None:
        save_adapter(replace(outcome.value[0], base_digest=base.digest), out, base=base.name)
        session.config["out"] = str(out)
        session.digests["adapter"] = outcome.value[0].digest
    return session.finish()


def _opened(data: TextSet | Path, test: TextSet | None, out: Path) -> TextSet:
    """The chats to learn from, once they, the test set and the output are known to be of use."""
    refuse_existing(out)
    data = open_texts(data, "chat") if isinstance(data, Path) else data
    for part in (data, test):
        if part is not None and part.answers is None:
            raise DataError(f"'{part.name}' has labels, a language model learns answers", hint="say --task chat")
    return data
