"""Whom one trusts for what: a store of identities with roles, expiry and revocations, from one TOML file."""

import fnmatch
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography.x509 import Certificate, load_pem_x509_certificates
from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator
from securesystemslib.signer import SSlibKey

from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.records import Frozen
from ostiary.provenance.envelope import first_error
from ostiary.provenance.files import read_small
from ostiary.provenance.keys import MAX_PEM, parse_public
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.strict import Days, Hex

Role = Literal["producer", "scanner", "data-owner"]
ROLES: tuple[Role, ...] = ("producer", "scanner", "data-owner")
MAX_STORE = 2**20
HINT = "docs/provenance.md shows a trust store"


class Identity(Frozen):
    """Somebody who is trusted, under a name, for roles, for models, between two moments.

    Known by a `key` (PEM text, or its path relative to the store); or by `subject` in a certificate that the CA
    `authority` issued for signing code (PEM text or path); or by `subject` as the sign-in service `issuer` told it to
    sigstore. Subjects are compared letter by letter. `models` are names with `*` and `?`; at least one letter must be
    told, since `*` alone would be everybody's model. Empty means all models.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    key: str | None = None
    authority: str | None = None
    issuer: Annotated[str, Field(min_length=1)] | None = None
    subject: Annotated[str, Field(min_length=1)] | None = None
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    models: tuple[str, ...] = ()
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None

    @model_validator(mode="after")
    def _known_one_way(self) -> Self:
        ways = [self.key, self.authority, self.issuer]
        if sum(way is not None for way in ways) != 1 or (self.subject is None) != (self.key is not None):
            raise ValueError("give `key`, or `authority` with `subject`, or `issuer` with `subject`")
        return self

    @field_validator("models")
    @classmethod
    def _told(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not pattern.strip("*?[]. ") for pattern in value):
            raise ValueError("a pattern of models that fits every name: leave `models` out if you mean that")
        return value


class Revoked(Frozen):
    """What is trusted no more: ids of keys, roots of models and of data sets, names of sources of samples."""

    keys: tuple[Hex, ...] = ()
    models: tuple[Hex, ...] = ()
    sets: tuple[Hex, ...] = ()
    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Store(Frozen):
    """The file as it is written; `version` must grow with each change that is handed out.

    `sigstore` is the path of a trust configuration of sigstore, relative to the store.
    """

    id: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[int, Field(ge=1)]
    expires: AwareDatetime
    max_age_days: Days | None = None
    threshold: dict[Role, Annotated[int, Field(ge=1, le=64)]] = Field(default_factory=dict)
    identity: Annotated[tuple[Identity, ...], Field(min_length=1)]
    revoked: Revoked = Revoked()
    floor: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    sigstore: str | None = None


@dataclass(frozen=True)
class Trust:
    """A store with its keys read. `digest` is the SHA-256 of the file, None where one key alone is trusted."""

    store: Store | None
    keys: Mapping[str, SSlibKey]
    identities: Mapping[str, tuple[Identity, ...]]
    authorities: Mapping[Identity, tuple[Certificate, ...]] = field(default_factory=dict)
    sigstore: str | None = None
    digest: str | None = None

    def threshold(self, role: Role) -> int:
        """How many keys must have signed in a role."""
        return self.store.threshold.get(role, 1) if self.store else 1

    def by_subject(self, subjects: frozenset[str], *, issuer: str | None = None) -> tuple[Identity, ...]:
        """The identities known by one of `subjects`, with a sign-in service that is `issuer`, or with a CA."""
        known = self.store.identity if self.store else ()
        return tuple(one for one in known if one.key is None and one.issuer == issuer and one.subject in subjects)


def read_trust(path: Path | str, *, pin: str | None = None) -> Trust:
    """The trust in `path`: a public key, which is then trusted for every role, or a store in TOML.

    `pin` is the SHA-256 that the file must have. Raises FormatError (unreadable), ConfigError (unknown keys, empty
    lists, thresholds that no set of its keys can meet) or Refused (OS750: not the file that was pinned).
    """
    path = Path(path)
    data, found = read_pinned(path, pin)
    if data.lstrip().startswith(b"-----BEGIN"):
        key = parse_public(data, str(path))
        identity = Identity(name=path.stem, key=data.decode("ascii", "replace"), roles=ROLES)
        return Trust(None, {key.keyid: key}, {key.keyid: (identity,)})
    return _read_store(path, data, found)


def read_pinned(path: Path, pin: str | None) -> tuple[bytes, str]:
    """The bytes of a policy or a trust store and their SHA-256, which must be `pin` where that is given.

    Raises FormatError, or Refused (OS750: not the file that was pinned).
    """
    data = read_small(path, MAX_STORE)
    found = hashlib.sha256(data).hexdigest()
    if pin is not None and found != pin.lower():
        raise Refused([Reason("OS750", path.name, f"its SHA-256 is {found}, not the pinned {pin[:80]}")])
    return data, found


def _read_store(path: Path, data: bytes, digest: str) -> Trust:
    try:
        store = Store.model_validate(tomllib.loads(data.decode()))
    except ValidationError as error:
        raise ConfigError(f"'{path}' is no trust store: {first_error(error)}", hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' is neither a public key nor TOML: {error}", hint=HINT) from error
    keys: dict[str, SSlibKey] = {}
    identities: dict[str, tuple[Identity, ...]] = {}
    authorities: dict[Identity, tuple[Certificate, ...]] = {}
    for identity in store.identity:
        if identity.key is not None:
            key = parse_public(_pem(identity.key, path), f"{path}: {identity.name}")
            keys[key.keyid] = key
            identities[key.keyid] = (*identities.get(key.keyid, ()), identity)
        if identity.authority is not None:
            authorities[identity] = _certificates(_pem(identity.authority, path), f"{path}: {identity.name}")
    for role, count in store.threshold.items():
        able = {identity.key or identity.name for identity in store.identity if role in identity.roles}
        if count > len(able):
            raise ConfigError(f"'{path}' asks for {count} signatures as {role} and has {len(able)} keys", hint=HINT)
    config = read_small(path.parent / store.sigstore, MAX_STORE).decode() if store.sigstore else None
    return Trust(store, keys, identities, authorities, config, digest)


def _pem(text: str, store: Path) -> bytes:
    """PEM that stands in a store itself, or in the file that it names."""
    if text.lstrip().startswith("-----BEGIN"):
        return text.encode()
    return read_small(store.parent / text, MAX_PEM)


def _certificates(pem: bytes, where: str) -> tuple[Certificate, ...]:
    try:
        return tuple(load_pem_x509_certificates(pem))
    except ValueError as error:
        raise FormatError(f"the `authority` of '{where}' is no certificate in PEM", hint=HINT) from error


def is_revoked(trust: Trust, key: str) -> bool:
    """Whether the store revokes the key with this id."""
    return trust.store is not None and key in trust.store.revoked.keys


def unfit(identity: Identity, role: Role, model: str, now: datetime) -> Reason | None:
    """Why what `identity` signed does not count for `role` and `model`; None when it does.

    Out of its time (OS744), without the role (OS745), not for this model (OS746).
    """
    if identity.expires is not None and now >= identity.expires:
        return Reason("OS744", identity.name, f"the identity expired on {day(identity.expires)}")
    if identity.not_before is not None and now < identity.not_before:
        return Reason("OS744", identity.name, f"the identity is not valid before {day(identity.not_before)}")
    if role not in identity.roles:
        return Reason("OS745", identity.name, f"its roles are {', '.join(identity.roles)}, not {role}")
    if identity.models and not any(fnmatch.fnmatchcase(model, pattern) for pattern in identity.models):
        return Reason("OS746", identity.name, f"it may not sign the model '{model}'")
    return None


def day(moment: datetime) -> str:
    """A moment as its date in UTC; at either end of the calendar as it is told."""
    try:
        return moment.astimezone(UTC).date().isoformat()
    except OverflowError:
        return moment.date().isoformat()
