"""Scanning a language model: a record of what the methods for texts find in it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ostiary.core.card import Access, Have
from ostiary.core.errors import ConfigError, DataError
from ostiary.core.plan import EXHAUSTIVE, plan
from ostiary.core.records import Record
from ostiary.core.session import Options
from ostiary.data import Data, ImageSet, TextSet
from ostiary.inputs import start
from ostiary.models.adapter import Adapted
from ostiary.models.chat_endpoint import ChatEndpoint
from ostiary.models.language import LanguageModel
from ostiary.scan.adapter_bank import AdapterBank, check_bank, read_bank
from ostiary.scan.adapter_spectrum import AdapterSpectrum
from ostiary.scan.calibration import NONE
from ostiary.training.language import token_rows

FEW = 40
ASKED, STRANGE = 16, 0.6
"""Trusted rows whose loss is looked at, and the part of what guessing costs from which on they are strange."""
"""Trusted prompts below which what is held out gives wide intervals."""


def have_of(trusted: Data | None, access: Access = "gradients") -> Have:
    """What the planner may count on. Raises DataError for images, and for trusted rows without answers."""
    if isinstance(trusted, ImageSet):
        raise DataError("the trusted samples are images, a language model is asked prompts", hint="give a set of texts")
    if trusted is not None and trusted.task != "chat":
        raise DataError(
            f"'{trusted.name}' has labels, a language model is asked prompts",
            hint="give trusted rows with answers (response, output, messages), or say --task chat",
        )
    return Have(access=access, modality="text", trusted_per_class=0 if trusted is None else len(trusted))


def access_to(model: LanguageModel | ChatEndpoint) -> Access:
    """What can be had of a model: everything, or answers alone."""
    return "gradients" if isinstance(model, LanguageModel) else "labels"


def planned_for(
    model: LanguageModel | ChatEndpoint,
    bank: AdapterBank | None,
    *,
    methods: Sequence[str],
    preset: str,
    params: Mapping[str, Mapping[str, Any]] | None,
) -> list[Any]:
    """The methods to run; a bank adds that which holds an adapter against it.

    Raises ConfigError as `plan`, for a bank of another base, and for one where there is no adapter.
    """
    task = "chat" if isinstance(model, LanguageModel) else "chat from outside"
    planned = plan("scan", methods=methods, preset=preset, params=params, task=task)
    if bank is None:
        return planned
    if not isinstance(model, Adapted):
        raise ConfigError("a bank of adapters judges adapters, and this is none", hint="leave out --calibration")
    check_bank(bank, model.base_digest)
    others = [method for method in planned if not isinstance(method, AdapterSpectrum)]
    return [AdapterSpectrum(bank=bank), *others]


def bank_of(given: object) -> AdapterBank | None:
    """The bank of adapters that was given, or its file; raises FormatError as `read_bank`, ConfigError for another."""
    if given is None or given == NONE or isinstance(given, AdapterBank):
        return given if isinstance(given, AdapterBank) else None
    if not isinstance(given, str | Path):
        raise ConfigError("a language model is held against a bank of adapters alone", hint="leave out --calibration")
    return read_bank(given)


def scan_language(
    model: LanguageModel | ChatEndpoint,
    trusted: Data | None,
    *,
    methods: Sequence[str],
    preset: str,
    params: Mapping[str, Mapping[str, Any]] | None,
    options: Options,
    calibration: object = None,
) -> Record:
    """Examine a language model with a few trusted prompts and their answers.

    `calibration` is a bank of adapters or its file, where the model is an adapter merged into its base. What it cost is
    in the record: `queries` rows, `tokens`, and the `flops` of the passes, where they ran here.
    """
    have = have_of(trusted, access_to(model))
    planned = planned_for(model, bank_of(calibration), methods=methods, preset=preset, params=params)
    config: dict[str, Any] = {"preset": preset, "task": "chat"}
    if isinstance(model, ChatEndpoint):
        config["served"] = model.served
    session = start("scan", model, options, config, [item.card.id for item in planned], trusted=trusted)
    if isinstance(model, Adapted):
        session.digests |= {"base": model.base_digest, "adapter": model.adapter.digest}
        if model.doubt:
            session.caution("OS950", model.doubt)
    if trusted is not None and len(trusted) < FEW:
        session.caution("OS901", f"there are {len(trusted)} trusted prompts; rates measured on half of them are wide")
    if isinstance(model, LanguageModel) and isinstance(trusted, TextSet) and trusted.answers is not None:
        few = trusted.subset(range(min(ASKED, len(trusted))))
        loss, guess = float(model.losses(token_rows(model, few)).mean()), math.log(model.vocabulary)
        if loss > STRANGE * guess:
            session.caution("OS934", f"its loss on trusted answers is {loss:.1f} a token, of {guess:.1f} by guessing")
    session.execute_all(planned, model, trusted, have=have, exhaustive=bool(methods) or preset == EXHAUSTIVE)
    session.config |= {"queries": model.rows, "tokens": model.tokens}
    if isinstance(model, LanguageModel):
        session.config["flops"] = model.flops
    return session.finish()
