"""What is signed about data: what a set holds (`ostiary:data-set/v1`), and what a model was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, Field, ValidationError

from ostiary.core.columns import Part
from ostiary.core.errors import ConfigError
from ostiary.core.records import Frozen
from ostiary.provenance import strict
from ostiary.provenance.attested import MAX_STATEMENT, Said, heard, say
from ostiary.provenance.envelope import first_error, opened
from ostiary.provenance.memory import SKEW
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.samples.leaf import SAMPLES, Kind
from ostiary.provenance.samples.manifest import Summary
from ostiary.provenance.statement import ROOT, Name, Subject, is_digest
from ostiary.provenance.trust import Trust, day

DATA_SET = "ostiary:data-set/v1"
TRAINING = "ostiary:training/v1"
T = TypeVar("T", "DataSet", "Training")

Count = Annotated[int, Field(ge=0)]


class DataSet(Frozen):
    """What a data owner says of a set, whose root is the subject's digest `ostiarySamplesV1`.

    `labels` and `sources` count samples; `version` counts up with each release of a name.
    """

    name: Name
    version: Count | None = None
    created: AwareDatetime
    kind: Kind
    part: Part
    samples: Annotated[int, Field(ge=1)]
    labels: dict[str, Count]
    sources: Annotated[dict[str, Count], Field(min_length=1)]
    manifestSha256: strict.Hex  # noqa: N815 - JSON's habit


class Link(Frozen):
    """A set or a model that a model was made of, by name and root."""

    name: Name
    root: strict.Hex


class Training(Frozen):
    """What a producer says a model was made of: sets it was trained on, and models it began with.

    The model's root is the subject's digest `ostiaryRootV1`. An adapter has the model it belongs to among `bases`, a
    merged model its base and the adapter.
    """

    name: Name
    created: AwareDatetime
    dataSets: Annotated[tuple[Link, ...], Field(max_length=10_000)] = ()  # noqa: N815
    bases: Annotated[tuple[Link, ...], Field(max_length=1_000)] = ()
    recipe: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    seed: Count | None = None


@dataclass(frozen=True, slots=True)
class SetSaid:
    """A verified statement about a set; `by` are the names of its signers in the trust store."""

    root: str
    what: DataSet
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingSaid:
    """A verified statement about a model; `by` are the names of its signers in the trust store."""

    root: str
    what: Training
    by: tuple[str, ...]


def state_set(summary: Summary, *, version: int | None = None, created: datetime | None = None) -> bytes:
    """The payload that says what a set holds; the time is now unless it is given."""
    head = summary.head
    predicate = {
        "name": head.name,
        "version": version,
        "created": _moment(created),
        "kind": head.kind,
        "part": head.part,
        "samples": head.count,
        "labels": summary.labels,
        "sources": summary.sources,
        "manifestSha256": summary.sha256.hex(),
    }
    subject = Subject(name=head.name, digest={SAMPLES: summary.root.hex()})
    return say([subject], DATA_SET, {key: value for key, value in predicate.items() if value is not None})


def state_training(
    name: str,
    root: str,
    *,
    data: Sequence[Link] = (),
    bases: Sequence[Link] = (),
    recipe: str | None = None,
    seed: int | None = None,
    created: datetime | None = None,
) -> bytes:
    """The payload that says what the model with this root was made of; the time is now unless it is given.

    Raises ConfigError when it names neither a set nor a base, or what cannot be stated.
    """
    if not data and not bases:
        raise ConfigError("a training names at least one data set or base model", hint="give --data or --base")
    predicate: dict[str, Any] = {
        "name": name,
        "created": _moment(created),
        "dataSets": [one.model_dump() for one in data],
        "bases": [one.model_dump() for one in bases],
        "recipe": recipe,
        "seed": seed,
    }
    stated = {key: value for key, value in predicate.items() if value is not None}
    try:
        Training.model_validate(stated)
        subject = Subject(name=name, digest={ROOT: root})
    except ValidationError as error:
        raise ConfigError(f"this cannot be stated: {first_error(error)}") from error
    return say([subject], TRAINING, stated)


def hear(
    data: bytes, trust: Trust, where: str, *, now: datetime | None = None, state: Path | None = None
) -> SetSaid | TrainingSaid:
    """What a signed statement about a set says, as data owners sign it, or about a training, as producers do.

    Raises Refused as `attested.heard`; with fields that are missing or contradict one another (OS730), digests under
    other names (OS731) or a time that has not come (OS747).
    """
    now = now or datetime.now(UTC)
    # Read before it is verified, to know in which role it must be signed; what is heard then is checked whole.
    told = strict.parse(opened(data, where).payload, where, limit=MAX_STATEMENT)
    if isinstance(told, dict) and told.get("predicateType") == TRAINING:
        said = heard(data, trust, "producer", [TRAINING], where, now=now, state=state)
        training = _predicate(said, Training, where, now)
        return TrainingSaid(_root(said, ROOT, training.name, where), training, said.signers)
    said = heard(data, trust, "data-owner", [DATA_SET], where, now=now, state=state)
    what = _predicate(said, DataSet, where, now)
    if sum(what.sources.values()) != what.samples or sum(what.labels.values()) > what.samples:
        raise Refused([Reason("OS730", where, "its counts of labels or sources do not fit its number of samples")])
    return SetSaid(_root(said, SAMPLES, what.name, where), what, said.signers)


def hear_set(
    data: bytes, trust: Trust, where: str, *, now: datetime | None = None, state: Path | None = None
) -> SetSaid:
    """As `hear`, for a statement that must be about a set. Raises Refused, for another one too (OS729)."""
    said = hear(data, trust, where, now=now, state=state)
    if isinstance(said, TrainingSaid):
        raise Refused([Reason("OS729", where, f"it says {TRAINING!r}, not {DATA_SET!r}")])
    return said


def check_stated(said: SetSaid, summary: Summary, where: str) -> None:
    """Raises Refused (OS754) when a manifest, read to its end, is not that of the set which was stated."""
    what, head = said.what, summary.head
    pairs: Mapping[str, tuple[object, object]] = {
        "root": (said.root, summary.root.hex()),
        "name": (what.name, head.name),
        "number of samples": (what.samples, head.count),
        "kind of content": (what.kind, head.kind),
        "part": (what.part, head.part),
        "labels": (what.labels, summary.labels),
        "sources": (what.sources, summary.sources),
        "SHA-256": (what.manifestSha256, summary.sha256.hex()),
    }
    reasons = [
        Reason("OS754", where, f"its {name} is not the one that was signed")
        for name, (stated, found) in pairs.items()
        if stated != found
    ]
    if reasons:
        raise Refused(reasons)


def _predicate(said: Said, model: type[T], where: str, now: datetime) -> T:
    try:
        found = model.model_validate_json(strict.canonical(said.predicate), strict=True)
    except ValidationError as error:
        raise Refused([Reason("OS730", where, f"its predicate is ill-formed: {first_error(error)}")]) from error
    if found.created > now + SKEW:
        raise Refused([Reason("OS747", where, f"signed on {day(found.created)}, which is in the future")])
    return found


def _root(said: Said, name: str, predicate: str, where: str) -> str:
    if len(said.subjects) != 1 or said.subjects[0].name != predicate:
        raise Refused([Reason("OS730", where, "its subject is not one with the name of its predicate")])
    digest = said.subjects[0].digest
    if set(digest) != {name} or not is_digest(digest[name]):
        raise Refused([Reason("OS731", where, f"the digest of its subject is not {name!r} alone")])
    return digest[name]


def _moment(created: datetime | None) -> str:
    moment = (created or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    return moment.isoformat().replace("+00:00", "Z")
