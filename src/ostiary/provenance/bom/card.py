"""What no file can tell of a model: author, licence, purpose, limits. From one TOML file, as its owner writes it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ostiary.core.errors import ConfigError
from ostiary.core.records import Frozen
from ostiary.provenance.envelope import first_error
from ostiary.provenance.files import read_small

MAX_CARD = 2**20
HINT = "docs/bom.md shows a card"

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Texts = tuple[Text, ...]
Approach = Literal["supervised", "unsupervised", "reinforcement-learning", "semi-supervised", "self-supervised"]
LinkType = Literal[
    "website", "documentation", "vcs", "model-card", "advisories", "risk-assessment", "threat-model", "license", "other"
]


class Ethical(Frozen):
    """An ethical consideration, and what is done about it."""

    name: Text
    mitigation: Text | None = None


class Link(Frozen):
    """Something elsewhere that belongs to the model."""

    type: LinkType
    url: Annotated[str, Field(pattern=r"^[!-~]{1,2000}$")]
    comment: Text | None = None


class System(Frozen):
    """The system that the model is a part of."""

    name: Text | None = None
    producer: Text | None = None
    version: Text | None = None
    timestamp: Text | None = None
    data_flow: Text | None = None
    data_usage: Text | None = None
    application_area: Text | None = None


class Security(Frozen):
    """How the model is protected, which standards are met, where policy and known weaknesses stand."""

    controls: Text | None = None
    compliance: Text | None = None
    policy: Text | None = None
    vulnerabilities: Text | None = None


class DataCard(Frozen):
    """What is to be said of one data set; `classification` is public, internal or what the owner calls it."""

    description: Text | None = None
    licence: Text | None = None
    owner: Text | None = None
    url: Annotated[str, Field(pattern=r"^[!-~]{1,2000}$")] | None = None
    classification: Text | None = None
    sensitive: Texts = ()


class ModelCardFile(Frozen):
    """The file as it is written; `author` is who answers for the BOM, `supplier` who made the model.

    Licences are ids or expressions of SPDX where they have one.
    """

    author: Text | None = None
    supplier: Text | None = None
    version: Text | None = None
    created: Text | None = None
    description: Text | None = None
    licence: Text | None = None
    task: Text | None = None
    approach: Approach | None = None
    inputs: Texts = ()
    outputs: Texts = ()
    users: Texts = ()
    use_cases: Texts = ()
    limitations: Texts = ()
    tradeoffs: Texts = ()
    ethical: tuple[Ethical, ...] = ()
    link: tuple[Link, ...] = ()
    system: System = System()
    security: Security = Security()
    data: Mapping[str, DataCard] = {}


def read_card(path: Path | str) -> ModelCardFile:
    """The card in a TOML file. Raises FormatError (unreadable) or ConfigError (no TOML, unknown keys, odd values)."""
    path = Path(path)
    try:
        return ModelCardFile.model_validate(tomllib.loads(read_small(path, MAX_CARD).decode()))
    except ValidationError as error:
        raise ConfigError(f"'{path}' is no card: {first_error(error)}", hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' is no TOML: {error}", hint=HINT) from error
