"""Screening a set of texts: the phrases that decide what becomes of the rows that hold them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.card import Access, Have
from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, DataError, OutOfTime
from ostiary.core.plan import Preset, plan
from ostiary.core.records import Record
from ostiary.core.session import Options, Session
from ostiary.data.texts import Task, TextSet
from ostiary.inputs import start
from ostiary.models.language import LanguageModel
from ostiary.models.text_classifier import TextClassifier
from ostiary.screen.duplicates import repeats, told_of
from ostiary.screen.summary import summariser
from ostiary.training.text_classifier import quick_text_classifier

HAVE = Have(access="none", modality="text", training_data=True)
"""What the planner may count on: the texts alone."""
BESIDE: dict[Task, Preset] = {"chat": {"text.screen.gradsentry": {}}, "classify": {"text.screen.bki": {}}}
"""What joins a preset where a model is given: one to be fine-tuned, with trusted rows, or one trained on the set."""
TextModel = LanguageModel | TextClassifier


def refuse_beside(**given: object) -> None:
    """Raise ConfigError for what a screening of texts has no use for."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"texts are screened by themselves: --{name} is for images", hint=f"leave out --{name}")


def screen_texts(
    data: TextSet,
    *,
    methods: Sequence[str],
    preset: str,
    params: Mapping[str, Mapping[str, Any]] | None,
    options: Options,
    model: TextModel | None = None,
    trusted: TextSet | None = None,
) -> Record:
    """Rank the rows of a set of texts.

    Of a chat set also with the model that is to be fine-tuned on it, if given; of one with labels with a classifier
    that was trained on it, or a small one that is trained here where a method that is named needs one.
    Raises DataError for a model of the other kind, or of other classes, ConfigError for `trusted` that nothing needs.
    """
    planned = planned_for(data, model, methods=methods, preset=preset, params=params)
    if trusted is not None and not any(item.card.needs.trusted_per_class for item in planned):
        raise ConfigError(
            "no method that runs looks at trusted texts",
            hint="name one (--method onion), give prompts with answers a --model, or leave out --trusted",
        )
    if model is not None:
        _check_fit(model, data)
    elif data.task == "classify" and any(item.card.needs.access != "none" for item in planned):
        model = quick_text_classifier(data, options.run()).to(options.device)
    asked = [item.card.id for item in planned]
    config = {"preset": preset, "task": data.task}
    session = start("screen", model, options, config, asked, data=data, trusted=trusted, subject=data.name)
    session.classes = tuple(data.classes)  # of the rows: a language model has none
    _note_repeats(session, data)
    have = have_of(model, trusted)
    for method in planned:
        if session.interrupted:
            break
        session.execute(method, data, model, trusted, have=have, summarise=summariser(data, method.card))
    return session.finish()


def _note_repeats(session: Session, data: TextSet) -> None:
    """Keep how often rows repeat one another in the record, and say so where it matters."""
    try:
        found = repeats(data, session.run)
    except OutOfTime as error:
        session.caution("OS940", f"rows that repeat one another were not counted: {error}")
        return
    session.config["repeats"] = found.facts()
    if said := told_of(found, data):
        session.caution("OS940", said)


def _check_fit(model: TextModel, data: TextSet) -> None:
    """Raise DataError where the model cannot be one for these rows."""
    if isinstance(model, LanguageModel) != (data.task == "chat"):
        what = "answers, which a language model gives" if data.task == "chat" else "labels, which a classifier gives"
        raise DataError(f"'{data.name}' has {what}; '{model.name}' does not", hint="give the model that fits, or none")
    if isinstance(model, TextClassifier) and len(model.classes) != len(data.classes):
        raise DataError(f"'{data.name}' has {len(data.classes)} classes, '{model.name}' {len(model.classes)}")


def have_of(model: TextModel | None, trusted: TextSet | None) -> Have:
    """What the planner may count on beside the texts."""
    access: Access = "none" if model is None else "gradients"
    return dataclasses.replace(HAVE, access=access, trusted_per_class=0 if trusted is None else len(trusted))


def planned_for(data: TextSet, model: TextModel | None, *, methods: Sequence[str], **chosen: Any) -> list[Any]:
    """The methods to run: those named, or the preset, and with a model what looks at rows with it."""
    planned = plan("screen", methods=methods, task=data.task, **chosen)
    return (
        planned if methods or model is None else planned + [make("screen", *one) for one in BESIDE[data.task].items()]
    )
