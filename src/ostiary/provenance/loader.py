"""Verify a model and load it, from the same bytes: what is swapped after the check is not what is used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ostiary.core.errors import FormatError
from ostiary.provenance.buffers import Buffers, as_files, read_all
from ostiary.provenance.contents import inspect_all
from ostiary.provenance.decision import Decision, accepted, exempted, refused
from ostiary.provenance.files import require
from ostiary.provenance.gate import Model, scan_reasons
from ostiary.provenance.policy import Exemption, Policy, read_policy
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.specification import spec_reasons
from ostiary.provenance.tensors import read_tensors, value_reasons
from ostiary.provenance.verify import Vouched, compare, ignored_by, read_signature, revoked_reasons, vouch

if TYPE_CHECKING:
    from torch import Tensor

    from ostiary.models.classifier import TorchClassifier

SIGNATURE, SCAN, BOM = ".sig", ".scan", ".bom"
Rule = Literal["signature", "scan", "bom", "data", "contents", "base"]


@dataclass(frozen=True)
class Loaded:
    """A model that was verified: its tensors, its files, and the decision that let it pass.

    All of it lies in the memory of this process, so that nothing on the disk can change it any more. `state` has the
    tensors of all files of weights by name, `files` the bytes of every file, `root` what they are together to those who
    speak of them, `base` what an adapter belongs to.
    """

    decision: Decision
    root: str
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where what is said of a model lies; what is None is looked for beside it, under its name and a suffix."""

    signature: Path | str | None = None
    scans: Sequence[Path | str] | None = None
    bom: Path | str | None = None

    def signature_of(self, path: Path) -> Path:
        """The file of the signature, whether it is there or not."""
        return Path(self.signature or f"{path}{SIGNATURE}")

    def scans_of(self, path: Path) -> list[Path]:
        """The files of statements about scans."""
        beside = Path(f"{path}{SCAN}")
        return [Path(one) for one in self.scans] if self.scans is not None else [beside] * beside.exists()

    def bom_of(self, path: Path) -> Path | None:
        """The file of the bill of materials."""
        beside = Path(f"{path}{BOM}")
        return Path(self.bom) if self.bom is not None else beside if beside.exists() else None


@dataclass
class Gate:
    """Reasons as they come up, rule by rule: with each of them a model must have an exemption, or it goes no further.

    What `patient` holds back until nothing more can be looked at is all that `admit` wants to tell at once. `root` is
    that of the bytes as they were signed, `named` that by which others speak of them.
    """

    policy: Policy
    now: datetime
    patient: bool = False
    root: str | None = None
    named: str | None = None
    vouched: Vouched | None = None
    found: dict[Rule, list[Reason]] = field(default_factory=dict)
    told: dict[Rule, list[str]] = field(default_factory=dict)
    exemption: Exemption | None = None

    @property
    def reasons(self) -> list[Reason]:
        """All reasons, in the order of the rules."""
        return [reason for reasons in self.found.values() for reason in reasons]

    def note(self, rule: Rule, reasons: Iterable[Reason], told: Iterable[str] = ()) -> None:
        """Reasons under a rule, which is thereby held against the model, and what speaks for it in words."""
        self.found.setdefault(rule, []).extend(reasons)
        self.told.setdefault(rule, []).extend(told)

    def check(self) -> None:
        """Raises Refused unless there are no reasons, or an exemption for all of them."""
        if not self.reasons:
            return
        codes = frozenset(reason.code for reason in self.reasons)
        self.exemption = self.policy.exemption(self.root, codes, self.now) if self.root is not None else None
        if self.exemption is None:
            raise Refused(self.reasons, hint="nothing was loaded")


def load_verified(
    path: Path | str,
    policy: Policy | Path | str,
    *,
    evidence: Evidence | None = None,
    name: str | None = None,
    base: Path | str | None = None,
    now: datetime | None = None,
    state: Path | None = None,
) -> Loaded:
    """Read a model once, hold what was read against its signature and the policy, and make tensors of it.

    `evidence` says where signature, scans and bill of materials lie; `name` that under which the model must be signed,
    by default its own. An adapter needs `base`, the folder of the model it is for, which must pass by the same policy.
    `state` is the folder of `memory`.

    Raises Refused with every reason of the first stage that has some (what is said of the bytes, contents, tensors) and
    with the `decision` on record, FormatError or ConfigError for what cannot be read. Nothing is loaded in part.
    """
    path, now = Path(path), now or datetime.now(UTC)
    policy = policy if isinstance(policy, Policy) else read_policy(policy)
    try:
        below = load_verified(base, policy, now=now, state=state) if base is not None else None
        gate = Gate(policy, now)
        under = None if below is None else below.root
        found, parts = examine(path, gate, evidence or Evidence(), name=name, base=under, state=state)
    except Refused as error:
        error.decision = refused("load", str(path), error, policy.trust, policy.digest)
        raise
    if gate.exemption is not None:
        decision = exempted(str(path), gate.reasons, gate.exemption, str(gate.root), policy)
    else:
        assert gate.vouched is not None  # noqa: S101 - a model without a signature has a reason against it
        decision = accepted("load", str(path), gate.vouched, policy.trust, policy.digest)
    merged = {name: tensor for part in parts.values() for name, tensor in part.items()}
    kept = {file: data.toreadonly() for file, data in found.files.items()}
    return Loaded(decision, str(gate.named), merged, kept, _name(path) if found.folder else None, below)


def examine(
    path: Path, gate: Gate, evidence: Evidence, *, name: str | None, base: str | None, state: Path | None
) -> tuple[Buffers, Mapping[str, Mapping[str, "Tensor"]]]:
    """The bytes of a model and the tensors in them, once `gate` lets them pass; `base` is the root of what lies below.

    Raises Refused, FormatError or ConfigError as `load_verified`; the reasons are then in the gate, too.
    """
    policy, now = gate.policy, gate.now
    try:
        require(path)
        signature = evidence.signature_of(path)
        called = name or _name(path)
        gate.vouched, reasons = _signed(signature, policy, called, now, state)
        algorithm = gate.vouched.claim.manifest.algorithm if gate.vouched is not None else "sha256"
        found = read_all(path, algorithm, limit=policy.rules.limits.max_bytes)
        if gate.vouched is not None:
            found = found.without(ignored_by(path, signature, gate.vouched.claim, ()))
        gate.root = found.manifest.root.hex()
        others = any(rule is not None for rule in (policy.rules.scan, policy.rules.bom, policy.rules.data))
        others |= policy.trust.store is not None and bool(policy.trust.store.revoked.models)
        named = found.in_sha256() if others else found.manifest
        gate.named = named.root.hex()
        gate.note("signature", reasons + (_altered(gate.vouched, found) if gate.vouched is not None else []))
        if not any(reason.code == "OS741" for reason in reasons):
            gate.note("signature", revoked_reasons(policy.trust, called, [gate.root, gate.named]))
        model = Model(gate.named, base, gate.vouched, called)
        if policy.rules.scan is not None:
            gate.note("scan", *scan_reasons(evidence.scans_of(path), model, policy, now=now, state=state))
        if policy.rules.bom is not None:
            from ostiary.provenance.bill import bom_reasons

            bill = evidence.bom_of(path)
            gate.note("bom", *bom_reasons(bill, named, base, policy, now=now, name=called, state=state))
        if policy.rules.data is not None:
            from ostiary.provenance.origin import data_reasons

            gate.note("data", *data_reasons(gate.named, policy, now=now, base=base, state=state))
        if not gate.patient:
            gate.check()
        contents = inspect_all(found.files, name or _name(path), policy.rules, has_base=base is not None)
        gate.note("contents", contents.reasons)
        if contents.reasons or not gate.patient:
            gate.check()
        # Only from here on is anything made of the bytes.
        parts = read_tensors(found.files, contents.checkpoints, policy.rules)
        signed = gate.vouched.claim.tensors if gate.vouched is not None else None
        gate.note("contents", spec_reasons(signed or {}, found.files))
        gate.note("contents", value_reasons(parts) if policy.rules.finite else [])
        gate.check()
    except (OSError, MemoryError) as error:
        raise FormatError(f"cannot read '{path}': {error}", hint="nothing was loaded") from error
    return found, parts


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
