"""What a signature says: an in-toto Statement v1 over the manifest of a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from ostiary.core.errors import ConfigError
from ostiary.core.records import Frozen
from ostiary.provenance import strict
from ostiary.provenance.envelope import MAX_ENVELOPE, first_error
from ostiary.provenance.files import bad_name, collisions, shown
from ostiary.provenance.manifest import DIGEST_BYTES, Algorithm, FileDigest, Manifest
from ostiary.provenance.refusal import Reason, Refused

STATEMENT = "https://in-toto.io/Statement/v1"
MODEL = "ostiary:model/v1"
"""The type of our predicate: an opaque name in the form of a URI, at which nothing is ever fetched."""
ROOT = "ostiaryRootV1"
"""The name of our root among a subject's digests; no `sha256`, so that no other reader takes it for a file's."""

Name = strict.Name
_DIGEST = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
TensorSpec = tuple[str, tuple[int, ...]]


class Subject(Frozen):
    """What a statement is about, by name and digest."""

    name: Name
    digest: dict[str, str]


class SignedFile(Frozen):
    """One line of the signed manifest."""

    path: Annotated[str, Field(max_length=4096)]
    size: Annotated[int, Field(ge=0)]
    digest: str


class Model(Frozen):
    """Our predicate: which files make up a model, when they were signed, and what tensors they hold.

    `version` counts up with each release of a name, for a floor below which none is taken. `tensors` is the signed
    specification by file: type and shape of each tensor by name.
    """

    name: Name
    version: Annotated[int, Field(ge=0)] | None = None
    created: AwareDatetime
    algorithm: Algorithm
    omsRoot: strict.Hex  # noqa: N815 - JSON's habit
    files: tuple[SignedFile, ...]
    emptyFolders: tuple[str, ...] = ()  # noqa: N815
    tensors: dict[str, dict[str, TensorSpec]] | None = None

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest that was signed."""
        files = tuple(FileDigest(file.path, file.size, bytes.fromhex(file.digest)) for file in self.files)
        return Manifest(self.algorithm, files, self.emptyFolders)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signature says of a model, whatever form it has: name, files, and what else was stated.

    `bound` says that sizes, empty folders and our root were signed, too; OpenSSF Model Signing has none of them.
    """

    name: str
    manifest: Manifest
    bound: bool
    version: int | None = None
    created: datetime | None = None
    tensors: Mapping[str, Mapping[str, TensorSpec]] | None = None


class Statement(Frozen):
    """The whole payload."""

    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[Subject, ...]
    predicateType: Literal["ostiary:model/v1"]  # noqa: N815
    predicate: Model

    def claim(self) -> Claim:
        """What is said, apart from how."""
        model = self.predicate
        return Claim(model.name, model.manifest, True, model.version, model.created, model.tensors)


def named(name: str, digest: Mapping[str, str]) -> Subject:
    """A model as a subject. Raises ConfigError for a name that cannot be signed."""
    try:
        return Subject(name=name, digest=dict(digest))
    except ValidationError as error:
        raise ConfigError(
            f"{name[:200]!r} is no name of a model", hint="a name without slashes or line ends"
        ) from error


def state(
    manifest: Manifest,
    name: str,
    *,
    version: int | None = None,
    tensors: Mapping[str, Mapping[str, TensorSpec]] | None = None,
    created: datetime | None = None,
) -> bytes:
    """The payload that says: the model `name` is these files. The time is now unless it is given.

    Raises ConfigError for a name that cannot be signed.
    """
    subject = named(name, {ROOT: manifest.root.hex()})
    moment = (created or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    predicate = {
        "name": name,
        "version": version,
        "created": moment.isoformat().replace("+00:00", "Z"),
        "algorithm": manifest.algorithm,
        "omsRoot": manifest.oms_root.hex(),
        "files": [{"path": file.path, "size": file.size, "digest": file.digest.hex()} for file in manifest.files],
        "emptyFolders": manifest.empty_folders,
        "tensors": tensors,
    }
    return strict.canonical(
        {
            "_type": STATEMENT,
            "subject": [subject.model_dump()],
            "predicateType": MODEL,
            "predicate": {key: value for key, value in predicate.items() if value is not None},
        }
    )


def read_statement(payload: bytes, where: str) -> Statement:
    """The statement in a payload, each part of it checked against the others.

    Raises Refused: JSON (OS720 to OS722), another predicate, old forms too (OS729), missing or odd fields (OS730),
    digests that are no 64 lower-case hex digits or under another name (OS731), a file named twice or out of order
    (OS732), names that lead elsewhere (OS703) or collide (OS704), roots that are not those of the files (OS711).
    """
    value = strict.parse(payload, where, limit=MAX_ENVELOPE)
    if isinstance(value, dict) and value.get("predicateType") != MODEL:
        raise Refused([Reason("OS729", where, f"it says {str(value.get('predicateType'))[:80]!r}, not {MODEL!r}")])
    try:
        # From JSON, so that lists are tuples and nothing else is taken for what it is not.
        found = Statement.model_validate_json(payload, strict=True)
    except ValidationError as error:
        raise Refused([Reason("OS730", where, f"it is no statement of version 1: {first_error(error)}")]) from error
    if reasons := _contradictions(found, where):
        raise Refused(reasons)
    return found


def _contradictions(found: Statement, where: str) -> list[Reason]:
    model = found.predicate
    if len(found.subject) != 1 or found.subject[0].name != model.name:
        return [Reason("OS730", where, "its subject is not one model with the name of its predicate")]
    odd = [file for file in model.files if not is_digest(file.digest)]
    stated = found.subject[0].digest
    if odd or set(stated) != {ROOT} or not is_digest(stated[ROOT]):
        what = shown(odd[0].path) if odd else "its subject"
        return [Reason("OS731", where, f"the digest of {what} is not {2 * DIGEST_BYTES} lower-case hex digits alone")]
    for names in ([file.path for file in model.files], list(model.emptyFolders)):
        if names != sorted(set(names), key=str.encode):
            return [Reason("OS732", where, "it names a file twice, or not in the order of names")]
    reasons = name_reasons([*(file.path for file in model.files), *model.emptyFolders])
    manifest = model.manifest
    if not reasons and (manifest.root.hex() != stated[ROOT] or manifest.oms_root.hex() != model.omsRoot):
        reasons.append(Reason("OS711", where, "its roots are not those of the files that it names"))
    return reasons


def name_reasons(names: list[str]) -> list[Reason]:
    """Reasons against signed names: they lead elsewhere (OS703), or some file systems take two for one (OS704)."""
    reasons = [Reason("OS703", shown(name), problem) for name in names if (problem := bad_name(name))]
    return reasons + collisions(names)


def is_digest(text: str) -> bool:
    """Whether a text is a digest of 32 bytes in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None
