"""Signed statements about something: an in-toto Statement v1 whose predicate is anything but a list of files.

A signature over a model's files is `statement`; this is what else is said of it: that it was scanned, what it was built
from, what a data set holds.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ostiary.core.errors import ConfigError
from ostiary.core.records import Frozen
from ostiary.provenance import strict
from ostiary.provenance.envelope import first_error, opened, signers
from ostiary.provenance.files import shown
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.statement import STATEMENT, Subject, is_digest
from ostiary.provenance.trust import Role, Trust
from ostiary.provenance.verify import count_signers, remember_store

MAX_STATEMENT = 64 * 2**20
"""Bytes of a statement with its signatures."""


class _Statement(Frozen):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=10_000)]
    predicateType: Annotated[str, Field(min_length=1, max_length=400)]  # noqa: N815
    predicate: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What enough trusted signers said in a role, of what; `sha256` is that of the payload, which is its name.

    `signers` are their names in the trust store, `keys` the ids of their keys.
    """

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]
    signers: tuple[str, ...]
    keys: tuple[str, ...]
    sha256: str


def say(subjects: Sequence[Subject], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """The payload of a statement, to be signed by `envelope.sign`.

    Raises ConfigError for a predicate that JSON cannot hold, no subject, or a digest that is no lower-case hex.
    """
    if not subjects or any(not is_digest(text) for one in subjects for text in one.digest.values()):
        raise ConfigError("a statement needs a subject with a digest of 64 lower-case hex digits")
    try:
        return strict.canonical(
            {
                "_type": STATEMENT,
                "subject": [one.model_dump() for one in subjects],
                "predicateType": predicate_type,
                "predicate": dict(predicate),
            }
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this cannot be stated as JSON: {error}") from error


def heard(
    data: bytes,
    trust: Trust,
    role: Role,
    types: Sequence[str],
    where: str,
    *,
    now: datetime | None = None,
    state: Path | None = None,
) -> Said:
    """What a signed statement says, once enough identities that are trusted in `role` for its subjects signed it.

    `types` are the predicates that are understood. `state` is the folder of `memory`.

    Raises Refused: as `envelope.opened` and `envelope.signers`; JSON (OS720 to OS722), another predicate (OS729),
    missing or odd fields (OS730), a digest that is none (OS731), too few fit signers (OS727, OS740, OS744 to OS746),
    and what `memory` says of the trust store.
    """
    now = now or datetime.now(UTC)
    remember_store(trust, now, state)
    envelope = opened(data, where)
    keys = signers(envelope, trust.keys, where)
    found = _read(envelope.payload, types, where)
    by = {key: trust.identities[key] for key in keys}
    good = count_signers(by, trust, role, [one.name for one in found.subject], now, where)
    names = sorted({name for names in good.values() for name in names})
    payload = hashlib.sha256(envelope.payload).hexdigest()
    return Said(found.subject, found.predicateType, found.predicate, tuple(names), tuple(sorted(good)), payload)


def name_reasons(said: Said, trust: Trust, role: Role, name: str, now: datetime, where: str) -> list[Reason]:
    """Why too few of those who said something may speak in `role` of the model `name`, whatever name they gave it."""
    try:
        count_signers({key: trust.identities[key] for key in said.keys}, trust, role, [name], now, where)
    except Refused as error:
        return list(error.reasons)
    return []


def _read(payload: bytes, types: Sequence[str], where: str) -> _Statement:
    value = strict.parse(payload, where, limit=MAX_STATEMENT)
    if isinstance(value, dict) and (told := value.get("predicateType")) not in types:
        raise Refused([Reason("OS729", where, f"it says {str(told)[:80]!r}, not {' or '.join(map(repr, types))}")])
    try:
        found = _Statement.model_validate_json(payload, strict=True)
    except ValidationError as error:
        raise Refused([Reason("OS730", where, f"it is no statement of version 1: {first_error(error)}")]) from error
    for one in found.subject:
        if not one.digest or not all(is_digest(text) for text in one.digest.values()):
            raise Refused(
                [Reason("OS731", where, f"the digest of '{shown(one.name)}' is not 64 lower-case hex digits")]
            )
    return found
