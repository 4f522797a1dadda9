"""What the artefacts of a model tell of it: files, headers, configurations, bases, data sets, attestations."""

import hashlib
import mmap
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary.core.errors import ConfigError
from ostiary.provenance import strict
from ostiary.provenance.bom.environment import Library
from ostiary.provenance.envelope import opened
from ostiary.provenance.files import read_small, shown
from ostiary.provenance.manifest import Manifest, OnBytes, digest
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.safetensors_header import Header, read_header
from ostiary.provenance.samples.leaf import SAMPLES
from ostiary.provenance.samples.manifest import SampleManifest, is_manifest
from ostiary.provenance.statement import ROOT as SUBJECT_ROOT
from ostiary.provenance.statement import is_digest

MAX_JSON = 16 * 2**20
MAX_WORD = 200
MAX_ATTESTATION = 64 * 2**20
CONFIGS = ("config.json", "adapter_config.json")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model's files, and what their headers and configurations say; `metadata` is the header's own."""

    name: str
    manifest: Manifest
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    metadata: dict[str, str]
    config: dict[str, Any]

    @property
    def architecture(self) -> str | None:
        """What the header or the configuration calls it."""
        named = self.config.get("architectures")
        return _word(named[0] if isinstance(named, list) and named else self.metadata.get("architecture"))

    @property
    def family(self) -> str | None:
        """The kind of model in a configuration of transformers or peft."""
        return _word(self.config.get("model_type") or self.config.get("peft_type"))

    @property
    def is_adapter(self) -> bool:
        """Whether it is a part of a model."""
        return any(file.path == "adapter_config.json" for file in self.manifest.files)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """What a model was made from: a base or an adapter; `manifest` None where only its root was given."""

    role: str
    name: str
    root: str
    manifest: Manifest | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set: the root of its manifest, and of records what they called it and how they digested it."""

    name: str
    root: str | None = None
    samples: int | None = None
    digest: str | None = None
    role: str = "training"


@dataclass(frozen=True, slots=True)
class Attested:
    """A file with a signed statement about the model, not verified here; `kind` is its predicate's type."""

    name: str
    sha256: str
    kind: str | None


@dataclass(frozen=True, slots=True)
class Beside:
    """What belongs to the model without being part of its files."""

    ancestors: tuple[Ancestor, ...] = ()
    data: tuple[DataSet, ...] = ()
    attestations: tuple[Attested, ...] = ()
    libraries: tuple[Library, ...] = ()


def describe(path: Path | str, *, on_bytes: OnBytes | None = None) -> ModelFacts:
    """A model's file or folder, digested in SHA-256 and looked at without loading it.

    Raises what `digest` raises, and Refused for ill-formed safetensors (OS145 to OS148) or JSON (OS720 to OS722).
    """
    path = Path(path)
    manifest = digest(path, on_bytes=on_bytes)
    inside = {file.path: path / file.path if path.is_dir() else path for file in manifest.files}
    headers = [_header(inside[name], name) for name in inside if name.endswith(".safetensors")]
    entries = [entry for header in headers for entry in header.tensors.values()]
    kinds = Counter(entry.dtype for entry in entries)
    config = next((_config(inside[name], name) for name in CONFIGS if name in inside and path.is_dir()), {})
    return ModelFacts(
        name=shown(path.resolve().name),
        manifest=manifest,
        tensors=len(entries),
        parameters=sum(_size(entry.shape) for entry in entries),
        dtypes=tuple(sorted(kinds)),
        metadata=headers[0].metadata if len(headers) == 1 else {},
        config=config,
    )


def read_ancestor(role: str, text: str, *, on_bytes: OnBytes | None = None) -> Ancestor:
    """A base or adapter: its path, or NAME@ROOT for one that is not here. Raises what `digest` raises."""
    path = Path(text)
    named = re.fullmatch(r"([^@\x00-\x1f]{1,200})@([0-9a-f]{64})", text)
    if named is not None and named[1].isprintable() and not path.exists():
        return Ancestor(role, named[1], named[2])
    manifest = digest(path, on_bytes=on_bytes)
    return Ancestor(role, shown(path.resolve().name), manifest.root.hex(), manifest)


def read_data(text: str) -> DataSet:
    """A data set from NAME=FILE or NAME=ROOT; the file is a manifest, or JSON with a `root`, signed or not.

    A manifest is read through; whose a statement is, is not verified here. Raises ConfigError for another form, what
    `read_small` and `SampleManifest` raise, Refused for JSON that is none (OS720 to OS722).
    """
    name, found, value = text.partition("=")
    if not found or not name or not value or not name.isprintable():
        raise ConfigError(f"--data takes NAME=MANIFEST or NAME=ROOT, not '{text[:200]}'", hint="docs/bom.md")
    if is_digest(value):
        return DataSet(name, root=value)
    if is_manifest(value):
        summary = SampleManifest(value).summary()
        return DataSet(name, root=summary.root.hex(), samples=summary.head.count)
    data = read_small(Path(value), MAX_ATTESTATION)
    told = _manifest_head(strict.parse(data, value, limit=MAX_ATTESTATION), data, value)
    root, samples = told.get("root"), told.get("samples")
    if not isinstance(root, str) or not is_digest(root):
        raise ConfigError(f"'{value}' tells no root of a data set", hint="give a manifest, or NAME=ROOT")
    return DataSet(name, root=root, samples=samples if type(samples) is int else None)


def read_attestation(path: Path | str, root: str) -> Attested:
    """A signed statement beside the model, by its digest; its signature is not verified here.

    Raises FormatError (unreadable) and Refused (OS796) for a statement about another model.
    """
    path = Path(path)
    data = read_small(path, MAX_ATTESTATION)
    kind = None
    try:
        payload = strict.parse(opened(data, path.name).payload, path.name, limit=MAX_ATTESTATION)
    except Refused:
        payload = None  # of another form: its digest is noted all the same
    if isinstance(payload, dict):
        kind = str(payload.get("predicateType"))[:200]
        subjects = payload.get("subject")
        about = [_digest_of(one, SUBJECT_ROOT) for one in subjects] if isinstance(subjects, list) else []
        if root not in about:
            raise Refused([Reason("OS796", path.name, "it is a statement about something else than this model")])
    return Attested(shown(path.name), hashlib.sha256(data).hexdigest(), kind)


def _digest_of(subject: Any, name: str) -> Any:
    found = subject.get("digest") if isinstance(subject, dict) else None
    return found.get(name) if isinstance(found, dict) else None


def _manifest_head(value: Any, data: bytes, where: str) -> dict[str, Any]:
    """What a manifest says, out of its envelope and statement where it has them."""
    if isinstance(value, dict) and "payload" in value:
        value = strict.parse(opened(data, where).payload, where, limit=MAX_ATTESTATION)
    if not isinstance(value, dict):
        return {}
    if not isinstance(value.get("predicate"), dict):
        return value
    subjects = value.get("subject")
    named = _digest_of(subjects[0], SAMPLES) if isinstance(subjects, list) and subjects else None
    return {"root": named, **value["predicate"]}


def _header(path: Path, name: str) -> Header:
    if not path.stat().st_size:
        return read_header(b"", name)
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return read_header(view, name)


def _config(path: Path, name: str) -> dict[str, Any]:
    found = strict.parse(read_small(path, MAX_JSON), name, limit=MAX_JSON)
    return found if isinstance(found, dict) else {}


def _word(value: Any) -> str | None:
    """A name that a stranger's configuration gives; None for what is no text that can be printed."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= MAX_WORD else None


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
