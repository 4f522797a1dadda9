"""Scanning a classifier of texts: the trusted texts are of its classes, and the methods those for texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.card import Have
from ostiary.core.errors import DataError
from ostiary.core.plan import plan
from ostiary.core.records import Record
from ostiary.core.session import Options, Session
from ostiary.data.texts import TextSet
from ostiary.inputs import have_of, start
from ostiary.models.text_classifier import TextClassifier


def have_of_texts(model: TextClassifier, trusted: Any) -> Have:
    """What the planner may count on; raises DataError for trusted samples that are no texts with labels."""
    if trusted is not None and (not isinstance(trusted, TextSet) or trusted.answers is not None):
        raise DataError(
            "the trusted samples are no texts with labels, which the model gives",
            hint="give a set of texts with labels (.csv, .jsonl), or say --task classify",
        )
    texts: Any = trusted
    return dataclasses.replace(have_of(model, texts), modality="text")


def scan_text_classifier(
    model: TextClassifier,
    trusted: Any,
    *,
    methods: Sequence[str],
    preset: str,
    params: Mapping[str, Mapping[str, Any]] | None,
    options: Options,
) -> Record:
    """Examine a classifier of texts; raises DataError for trusted samples that are no texts with its labels."""
    have = have_of_texts(model, trusted)
    planned = plan("scan", methods=methods, preset=preset, params=params, task="classify")
    config = {"preset": preset, "task": "classify"}
    session = start("scan", model, options, config, [item.card.id for item in planned], trusted=trusted)
    _look_for_one_answer(session, model, trusted)
    session.execute_all(planned, model, trusted, have=have, exhaustive=True)
    return session.finish()


def _look_for_one_answer(session: Session, model: TextClassifier, trusted: TextSet | None) -> None:
    """Caution a model that gives all trusted texts one class."""
    if trusted is None or len(trusted) < 2:
        return
    given = model.predict(trusted.texts).argmax(dim=1).unique().tolist()
    if len(given) == 1:
        name = model.classes[given[0]]
        session.caution("OS935", f"'{model.name}' gives all {len(trusted)} trusted texts the class '{name}'")
