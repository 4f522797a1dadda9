"""Screening a set of texts: the phrases that decide what becomes of the rows that hold them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.card import Access, Have
from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError
from ostiary.core.plan import Preset, plan
from ostiary.core.records import Record
from ostiary.core.session import Options
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.models.language import LanguageModel
from ostiary.screen.summary import summariser

HAVE = Have(access="none", modality="text", training_data=True)
"""What the planner may count on: the texts alone."""
BESIDE: Preset = {"text.screen.gradsentry": {}}
"""What joins a preset where the model is given that is to be fine-tuned, and trusted rows."""


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
    model: LanguageModel | None = None,
    trusted: TextSet | None = None,
) -> Record:
    """Rank the rows of a set of texts; of a chat set also with the model that is to be fine-tuned on it, if given."""
    planned = planned_for(data, model, methods=methods, preset=preset, params=params)
    asked = [item.card.id for item in planned]
    config = {"preset": preset, "task": data.task}
    session = start("screen", model, options, config, asked, data=data, trusted=trusted, subject=data.name)
    session.classes = tuple(data.classes)  # of the rows: a language model has none
    have = have_of(model, trusted)
    for method in planned:
        if session.interrupted:
            break
        session.execute(method, data, model, trusted, have=have, summarise=summariser(data, method.card))
    return session.finish()


def have_of(model: LanguageModel | None, trusted: TextSet | None) -> Have:
    """What the planner may count on beside the texts."""
    access: Access = "none" if model is None else "gradients"
    return dataclasses.replace(HAVE, access=access, trusted_per_class=0 if trusted is None else len(trusted))


def planned_for(data: TextSet, model: LanguageModel | None, *, methods: Sequence[str], **chosen: Any) -> list[Any]:
    """The methods to run: those named, or the preset, and with a model what looks at rows with it."""
    planned = plan("screen", methods=methods, task=data.task, **chosen)
    return planned if methods or model is None else planned + [make("screen", *one) for one in BESIDE.items()]
