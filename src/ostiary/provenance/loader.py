"""Verify a model and load it, from the same bytes: what is swapped after the check is not what is used."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostiary.core.errors import FormatError
from ostiary.provenance.buffers import Buffers, as_files, read_all
from ostiary.provenance.contents import inspect_all
from ostiary.provenance.decision import Decision, accepted, exempted, refused
from ostiary.provenance.files import require
from ostiary.provenance.policy import Exemption, Policy, read_policy
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.specification import spec_reasons
from ostiary.provenance.tensors import read_tensors, value_reasons
from ostiary.provenance.verify import Vouched, compare, ignored_by, read_signature, vouch

if TYPE_CHECKING:
    from torch import Tensor

    from ostiary.models.classifier import TorchClassifier

SIGNATURE = ".sig"


@dataclass(frozen=True)
class Loaded:
    """A model that was verified: its tensors, its files, and the decision that let it pass.

    All of it lies in the memory of this process, so that nothing on the disk can change it any more. `state` has the
    tensors of all files of weights by name, `files` the bytes of every file, `base` what an adapter belongs to.
    """

    decision: Decision
    state: Mapping[str, "Tensor"]
    files: Mapping[str, memoryview]
    folder: str | None
    base: "Loaded | None" = None

    @contextmanager
    def as_path(self) -> Iterator[Path]:
        """A path to these very bytes, for libraries that take nothing else, for as long as the block runs."""
        with as_files(self.files, self.folder) as path:
            yield path if self.folder is not None else path / next(iter(self.files))

    def classifier(self, arch: str | None = None, **how: Any) -> "TorchClassifier":
        """The classifier in these bytes; options as those of `ostiary.load` without a policy."""
        from ostiary.models.load import load_model

        with self.as_path() as path:
            return load_model(path, arch, **how)

    def transformers(self, kind: str = "AutoModel", **how: Any) -> Any:
        """What `from_pretrained` of the transformers class `kind` makes of these bytes, without network.

        Code that comes with them is not run unless the caller says `trust_remote_code=True`.
        """
        import transformers

        how = {"local_files_only": True, "trust_remote_code": False, **how}
        with self.as_path() as path:
            return getattr(transformers, kind).from_pretrained(path, **how)


@dataclass
class _Gate:
    """Reasons as they come up: with each of them a model must have an exemption, or it goes no further."""

    policy: Policy
    now: datetime
    root: str
    reasons: list[Reason] = field(default_factory=list)
    exemption: Exemption | None = None

    def pass_in_spite_of(self, more: Iterable[Reason]) -> None:
        self.reasons += more
        if not self.reasons:
            return
        codes = frozenset(reason.code for reason in self.reasons)
        self.exemption = self.policy.exemption(self.root, codes, self.now)
        if self.exemption is None:
            raise Refused(self.reasons, hint="nothing was loaded")


def load_verified(
    path: Path | str,
    policy: Policy | Path | str,
    *,
    signature: Path | str | None = None,
    name: str | None = None,
    base: Path | str | None = None,
    now: datetime | None = None,
    state: Path | None = None,
) -> Loaded:
    """Read a model once, hold what was read against its signature and the policy, and make tensors of it.

    `signature` is by default the file beside `path` whose name ends in `.sig`; `name` that under which the model must
    be signed, by default its own. An adapter needs `base`, the folder of the model it is for, which must pass by the
    same policy. `state` is the folder of `memory`.

    Raises Refused with every reason of the first stage that has some (signature and bytes, contents, tensors) and
    with the `decision` on record, FormatError or ConfigError for what cannot be read. Nothing is loaded in part.
    """
    path, now = Path(path), now or datetime.now(UTC)
    policy = policy if isinstance(policy, Policy) else read_policy(policy)
    try:
        below = load_verified(base, policy, now=now, state=state) if base is not None else None
        require(path)
        signature = Path(signature or f"{path}{SIGNATURE}")
        vouched, reasons = _signed(signature, policy, name or _name(path), now, state)
        algorithm = vouched.claim.manifest.algorithm if vouched is not None else "sha256"
        found = read_all(path, algorithm, limit=policy.rules.limits.max_bytes)
        if vouched is not None:
            found = found.without(ignored_by(path, signature, vouched.claim, ()))
        gate = _Gate(policy, now, found.manifest.root.hex())
        gate.pass_in_spite_of(reasons + (_altered(vouched, found) if vouched is not None else []))
        contents = inspect_all(found.files, name or _name(path), policy.rules, has_base=base is not None)
        gate.pass_in_spite_of(contents.reasons)
        # Only from here on is anything made of the bytes.
        parts = read_tensors(found.files, contents.checkpoints, policy.rules)
        signed = vouched.claim.tensors if vouched is not None else None
        gate.pass_in_spite_of(spec_reasons(signed or {}, found.files))
        gate.pass_in_spite_of(value_reasons(parts) if policy.rules.finite else [])
    except Refused as error:
        error.decision = refused("load", str(path), error, policy.trust, policy.digest)
        raise
    except (OSError, MemoryError) as error:
        raise FormatError(f"cannot read '{path}': {error}", hint="nothing was loaded") from error
    if gate.exemption is not None:
        decision = exempted(str(path), gate.reasons, gate.exemption, gate.root, policy)
    else:
        assert vouched is not None  # noqa: S101 - a model without a signature has a reason against it
        decision = accepted("load", str(path), vouched, policy.trust, policy.digest)
    merged = {name: tensor for part in parts.values() for name, tensor in part.items()}
    folder = _name(path) if found.folder else None
    return Loaded(decision, merged, {file: data.toreadonly() for file, data in found.files.items()}, folder, below)


def _signed(
    signature: Path, policy: Policy, name: str, now: datetime, state: Path | None
) -> tuple[Vouched | None, list[Reason]]:
    """Who vouches for the model, or why nobody does."""
    try:
        return vouch(read_signature(signature), policy.trust, name=name, now=now, state=state), []
    except Refused as error:
        return None, list(error.reasons)


def _altered(vouched: Vouched, found: Buffers) -> list[Reason]:
    try:
        compare(vouched.claim, found.manifest)
    except Refused as error:
        return list(error.reasons)
    return []


def _name(path: Path) -> str:
    return path.resolve().name
