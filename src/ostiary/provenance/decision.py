"""What was decided about a model, on what grounds: the record of verifying and of trusted loading."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import ostiary
from ostiary.core.records import Frozen
from ostiary.provenance.policy import Exemption, Policy
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.trust import Trust
from ostiary.provenance.verify import Vouched

SCHEMA_VERSION: Literal[1] = 1
Outcome = Literal["met", "broken", "undecided", "not-asked"]


class Ground(Frozen):
    """One reason of a refusal."""

    code: str
    subject: str
    message: str


class Ruling(Frozen):
    """What came of one rule of a policy, and what its evidence told; `undecided` where that leaves it open.

    That is so without a reason, too, where files could not be read and the rule was not come to.
    """

    rule: str
    outcome: Outcome
    reasons: tuple[Ground, ...] = ()
    told: tuple[str, ...] = ()


class Decision(Frozen):
    """Accepted, refused, or loaded in spite of reasons by an exemption that says why; of `admit`, rule by rule.

    `accepted` says unchanged, and signed by whom, `admitted` that it met the policy's rules; neither says harmless.
    `parts` are what was decided of a base model and of adapters.

    No part of it needs torch, so that verifying starts at once; that is why it is no `Record` (decision 28).
    `trust` is the SHA-256 of the trust store, `policy` that of the policy, where there were any.
    """

    kind: Literal["verify", "load", "admit"]
    schema_version: Literal[1] = SCHEMA_VERSION
    ostiary: str = ostiary.__version__
    created: str
    command: tuple[str, ...] = ()
    subject: str
    decision: Literal["accepted", "refused", "exempted", "admitted", "incomplete"]
    name: str | None = None
    version: int | None = None
    signed: str | None = None
    root: str | None = None
    oms_root: str | None = None
    files: int | None = None
    signers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    trust: str | None = None
    policy: str | None = None
    reasons: tuple[Ground, ...] = ()
    exemption: str | None = None
    rules: tuple[Ruling, ...] = ()
    parts: "tuple[Decision, ...]" = ()

    def to_json(self) -> str:
        """The decision as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def accepted(
    kind: Literal["verify", "load"], subject: str, vouched: Vouched, trust: Trust, policy: str | None = None
) -> Decision:
    """The decision where nothing spoke against a model; `policy` is the SHA-256 of the policy it was held against."""
    claim = vouched.claim
    return Decision(
        kind=kind,
        created=_now(),
        subject=subject,
        decision="accepted",
        name=claim.name,
        version=claim.version,
        signed=_utc(claim.created) if claim.created else None,
        root=claim.manifest.root.hex() if claim.bound else None,
        oms_root=claim.manifest.oms_root.hex(),
        files=len(claim.manifest.files),
        signers=vouched.signers,
        keys=vouched.keys,
        trust=trust.digest,
        policy=policy,
    )


def refused(
    kind: Literal["verify", "load"], subject: str, error: Refused, trust: Trust | None, policy: str | None = None
) -> Decision:
    """The decision where something did."""
    digest = trust.digest if trust else None
    return Decision(
        kind=kind,
        created=_now(),
        subject=subject,
        decision="refused",
        trust=digest,
        policy=policy,
        reasons=grounds(error.reasons),
    )


def exempted(subject: str, reasons: Sequence[Reason], exemption: Exemption, root: str, policy: Policy) -> Decision:
    """The decision where reasons stand and an exemption lets the model with this root pass."""
    until = exemption.expires.astimezone(UTC).isoformat(timespec="seconds")
    return Decision(
        kind="load",
        created=_now(),
        subject=subject,
        decision="exempted",
        root=root,
        trust=policy.trust.digest,
        policy=policy.digest,
        reasons=grounds(reasons),
        exemption=f"{exemption.reason} (until {until})",
    )


def grounds(reasons: Sequence[Reason]) -> tuple[Ground, ...]:
    """Reasons as they stand on record."""
    return tuple(Ground(code=one.code, subject=one.subject, message=one.message) for one in reasons)


def _utc(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).isoformat()
    except OverflowError:  # at either end of the calendar, where UTC has no such day
        return moment.isoformat()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
