"""The two kinds of models of texts that are repaired: how each is scanned, measured and written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ostiary.core.card import Have
from ostiary.core.errors import DataError
from ostiary.core.protocols import Repaired
from ostiary.core.records import PhraseTrigger, Rate, Record, RepairEvidence
from ostiary.data.texts import Task, TextSet
from ostiary.models.language import LanguageModel
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.text_folder import save_language, save_text_classifier
from ostiary.repair.text_tune import Row, TextModel
from ostiary.scan.language import have_of, scan_language
from ostiary.scan.text_models import have_of_texts, scan_text_classifier
from ostiary.training.language import token_rows
from ostiary.training.language_flow import ANSWER_STEPS, exact_match
from ostiary.training.measure import per_class, predictions, rate

WITH_PHRASE = "text.repair.phrase-unlearning"
"""On small models of either kind it leaves least behind, at the least price."""
EXACT, TOKENS, FIRES = "exact answers", "answer tokens told right", "prompts with a recovered phrase that fire"
ACCURACY = "accuracy"
TURNED = "texts of other classes that a recovered phrase sends to its class"
UNTURNED = "the same texts without it"
Phrases = Sequence[PhraseTrigger]


@dataclass(frozen=True, slots=True)
class Kind:
    """How models of one kind are scanned, measured and written.

    `without_phrase` is the repair where there is no phrase; `methods` are the others that take such a model. A fall of
    the rates named in `bounded` is the price of a repair.
    """

    task: Task
    without_phrase: str
    methods: tuple[str, ...]
    bounded: tuple[str, ...]
    scan: Callable[..., Record]
    have: Callable[[Any, TextSet], Have]
    measure: Callable[[Any, TextSet, Phrases], dict[str, Rate]]
    save: Callable[..., None]

    def compare(self, before: TextModel, value: Repaired, check: TextSet, phrases: Phrases) -> RepairEvidence:
        """Rates of both models on trusted rows that no repair saw; class by class where there are classes."""
        models: tuple[Any, Any] = (before, value.model)
        was, now = (self.measure(model, check, phrases) for model in models)
        rows: list[tuple[Rate, ...]] = [(), ()]
        if isinstance(before, TextClassifier):
            rows = [per_class(predictions(model, check), check.labels, len(check.classes)) for model in models]
        return RepairEvidence(
            before=was, after=now, per_class_before=rows[0], per_class_after=rows[1], selected=value.selected
        )


def _answered(model: LanguageModel, check: TextSet, phrases: Phrases) -> dict[str, Rate]:
    """What a language model makes of rows that no repair saw: their answers, and what phrases in front bring."""
    found = {EXACT: exact_match(model, check), TOKENS: _tokens(model, token_rows(model, check))}
    hits = total = 0
    for one in phrases:
        if one.answer:
            answer = model.shown(one.answer)
            given = model.answers([f"{one.phrase} {text}" for text in check.texts], ANSWER_STEPS)
            hits, total = hits + sum(answer in text for text in given), total + len(given)
    return found | ({FIRES: Rate(k=hits, n=total)} if total else {})


@torch.no_grad()
def _tokens(model: LanguageModel, rows: Sequence[Row]) -> Rate:
    """How many tokens of the answers are the likeliest behind what stands before them."""
    hits = total = 0
    for prompt, answer in rows:
        ids, mask = model.padded([[*prompt, *answer]])
        length = min(len(answer), ids.shape[1] - 1)
        likeliest = model.logits(ids, mask)[0, -length - 1 : -1].argmax(1)
        hits, total = hits + int((likeliest == ids[0, -length:]).sum()), total + length
    return Rate(k=hits, n=total)


def _labelled(model: TextClassifier, check: TextSet, phrases: Phrases) -> dict[str, Rate]:
    """What a classifier makes of texts that no repair saw: their labels, and what phrases in front change."""
    found = {ACCURACY: rate(predictions(model, check) == check.labels)}
    counts: Mapping[str, list[int]] = {TURNED: [0, 0], UNTURNED: [0, 0]}
    for one in phrases:
        others = [text for text, label in zip(check.texts, check.labels.tolist(), strict=True) if label != one.label]
        for name, texts in ((TURNED, [f"{one.phrase} {text}" for text in others]), (UNTURNED, others)):
            given = model.predict(texts).argmax(dim=1).tolist()
            counts[name][0] += given.count(one.label)
            counts[name][1] += len(texts)
    return found | {name: Rate(k=hits, n=n) for name, (hits, n) in counts.items() if n}


LANGUAGE = Kind(
    task="chat",
    without_phrase="text.repair.crow",
    methods=("text.repair.fine-mixing", "text.repair.fine-tuning", "text.repair.w2s"),
    bounded=(EXACT, TOKENS),
    scan=scan_language,
    have=lambda _, trusted: have_of(trusted),
    measure=_answered,
    save=save_language,
)
"""CROW alone silences what nobody recovered in a small language model."""
CLASSIFIER = Kind(
    task="classify",
    without_phrase="text.repair.token-pruning",
    methods=("text.repair.fine-mixing", "text.repair.fine-tuning"),
    bounded=(ACCURACY,),
    scan=scan_text_classifier,
    have=have_of_texts,
    measure=_labelled,
    save=save_text_classifier,
)
"""Pruning tokens takes single words out of a small classifier that nothing was accused in, and costs it little."""


def kind_of(model: TextModel) -> Kind:
    """The kind of a model."""
    return LANGUAGE if isinstance(model, LanguageModel) else CLASSIFIER


def rows_for(model: TextModel, trusted: object) -> TextSet:
    """Trusted rows as a repair of the model takes them. Raises DataError for none, images, or rows of another kind."""
    wanted = "prompts with answers" if isinstance(model, LanguageModel) else "texts with labels"
    if not isinstance(trusted, TextSet):
        what = "no trusted rows were given" if trusted is None else "the trusted samples are images"
        raise DataError(f"{what}, '{model.name}' is repaired with {wanted}", hint=f"give {wanted}")
    kind_of(model).have(model, trusted)  # checks that they fit together
    return trusted
