"""Scanning a language model: a record of what the methods for texts find in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.card import Have
from ostiary.core.errors import DataError
from ostiary.core.plan import EXHAUSTIVE, plan
from ostiary.core.records import Record
from ostiary.core.session import Options
from ostiary.data import Data, ImageSet
from ostiary.inputs import start
from ostiary.models.language import LanguageModel

FEW = 40
"""Trusted prompts below which what is held out gives wide intervals."""


def have_of(trusted: Data | None) -> Have:
    """What the planner may count on. Raises DataError for images, and for trusted rows without answers."""
    if isinstance(trusted, ImageSet):
        raise DataError("the trusted samples are images, a language model is asked prompts", hint="give a set of texts")
    if trusted is not None and trusted.task != "chat":
        raise DataError(
            f"'{trusted.name}' has labels, a language model is asked prompts",
            hint="give trusted rows with answers (response, output, messages), or say --task chat",
        )
    return Have(access="gradients", modality="text", trusted_per_class=0 if trusted is None else len(trusted))


def scan_language(
    model: LanguageModel,
    trusted: Data | None,
    *,
    methods: Sequence[str],
    preset: str,
    params: Mapping[str, Mapping[str, Any]] | None,
    options: Options,
) -> Record:
    """Examine a language model with a few trusted prompts and their answers."""
    have = have_of(trusted)
    planned = plan("scan", methods=methods, preset=preset, params=params, task="chat")
    config = {"preset": preset, "task": "chat", "template": model.template.digest}
    session = start("scan", model, options, config, [item.card.id for item in planned], trusted=trusted)
    if trusted is not None and len(trusted) < FEW:
        session.caution("OS901", f"there are {len(trusted)} trusted prompts; rates measured on half of them are wide")
    session.execute_all(planned, model, trusted, have=have, exhaustive=bool(methods) or preset == EXHAUSTIVE)
    session.config["queries"] = model.rows
    session.config["tokens"] = model.tokens
    return session.finish()
