"""Screening a set of texts: the phrases that decide what becomes of the rows that hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.card import Have
from ostiary.core.errors import ConfigError
from ostiary.core.plan import plan
from ostiary.core.records import Record
from ostiary.core.session import Options
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.screen.summary import summariser

HAVE = Have(access="none", modality="text", training_data=True)
"""What the planner may count on: the texts alone."""


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
) -> Record:
    """Rank the rows of a set of texts; no model is looked at."""
    planned = plan("screen", methods=methods, preset=preset, params=params, task=data.task)
    asked = [item.card.id for item in planned]
    config = {"preset": preset, "task": data.task}
    session = start("screen", None, options, config, asked, data=data, subject=data.name)
    for method in planned:
        if session.interrupted:
            break
        session.execute(method, data, None, None, have=HAVE, summarise=summariser(data, method.card))
    return session.finish()
