"""The decision that a user came for: may this model be used here, by a policy, and if not, why."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from ostiary.provenance.decision import Decision, Outcome, Ruling, accepted, exempted, grounds, refused
from ostiary.provenance.loader import Evidence, Gate, Rule, examine
from ostiary.provenance.policy import Policy, read_policy
from ostiary.provenance.refusal import Reason, Refused

UNDECIDED = frozenset({"OS101", "OS779"})
"""Reasons that accuse nobody: a file of a kind that is not examined, a scan without a result."""

OPTIONAL = frozenset({"scan", "bom", "data"})
"""Rules that a policy may leave out."""


def admit(
    artefact: Path | str,
    policy: Policy | Path | str,
    *,
    evidence: Evidence | None = None,
    name: str | None = None,
    base: Path | str | None = None,
    adapters: Sequence[Path | str] = (),
    now: datetime | None = None,
    state: Path | None = None,
) -> Decision:
    """Hold a model against every rule of a policy: files, signature, scan, bill of materials, base and adapters.

    As `load_verified`, but all rules are looked at and told, and nothing is loaded. `base` and each of `adapters`,
    which are for `artefact`, must be admitted by the same policy, with what is said of them beside them. `refused`
    where a rule is broken; `incomplete` where none is, but evidence that a rule asks for comes to no result.

    Raises FormatError or ConfigError for what cannot be read.
    """
    path, now = Path(artefact), now or datetime.now(UTC)
    policy = policy if isinstance(policy, Policy) else read_policy(policy)
    parts, below = [], None
    if base is not None:
        part, below = _decide(Path(base), policy, Evidence(), None, None, [], now, state)
        parts = [part]
    own, root = _decide(path, policy, evidence or Evidence(), name, below, parts, now, state)
    if not adapters:
        return own
    # An adapter is read beside the very model that was just examined, so that its base is known by its bytes.
    return _joined(own, [_decide(Path(one), policy, Evidence(), None, root, [], now, state)[0] for one in adapters])


def _decide(
    path: Path,
    policy: Policy,
    evidence: Evidence,
    name: str | None,
    below: str | None,
    parts: Sequence[Decision],
    now: datetime,
    state: Path | None,
) -> tuple[Decision, str | None]:
    """The decision about one artefact, and the root by which others speak of its bytes."""
    gate = Gate(policy, now, patient=True)
    error: Refused | None = None
    gate.note("base", [reason for part in parts for reason in _unfit(part)])
    try:
        examine(path, gate, evidence, name=name, base=below, state=state)
    except Refused as found:
        error = found
        known = set(gate.reasons)
        gate.note("contents", [reason for reason in found.reasons if reason not in known])
    if error is None and gate.exemption is not None:
        made = exempted(str(path), gate.reasons, gate.exemption, str(gate.root), policy)
    elif error is None and gate.vouched is not None:
        made = accepted("load", str(path), gate.vouched, policy.trust, policy.digest)
    else:
        made = refused("load", str(path), Refused(gate.reasons), policy.trust, policy.digest)
    open_only = bool(gate.reasons) and {reason.code for reason in gate.reasons} <= UNDECIDED
    word = {"accepted": "admitted", "refused": "incomplete" if open_only else "refused"}
    told = {
        "kind": "admit",
        "decision": word.get(made.decision, made.decision),
        "root": gate.root,
        "rules": tuple(_ruling(rule, gate) for rule in get_args(Rule)),
        "parts": tuple(parts),
    }
    return made.model_copy(update=told), gate.named


def _ruling(rule: Rule, gate: Gate) -> Ruling:
    reasons = gate.found.get(rule)
    if reasons is None:
        # What the policy asks for and nobody came to look at, since the files could not be read, is no rule left out.
        asked = rule not in OPTIONAL or getattr(gate.policy.rules, rule) is not None
        return Ruling(rule=rule, outcome="undecided" if asked else "not-asked")
    if rule == "base" and not reasons:
        return Ruling(rule=rule, outcome="not-asked")
    open_only = {reason.code for reason in reasons} <= UNDECIDED
    outcome: Outcome = "met" if not reasons else "undecided" if open_only else "broken"
    return Ruling(rule=rule, outcome=outcome, reasons=grounds(reasons), told=tuple(gate.told.get(rule, ())))


def _unfit(part: Decision) -> list[Reason]:
    """Why a part does not let pass what stands on it; one that came to no result leaves that open, too."""
    if part.decision in ("admitted", "exempted"):
        return []
    why = ", ".join(dict.fromkeys(reason.code for reason in part.reasons))
    code = part.reasons[0].code if part.decision == "incomplete" else "OS787"
    return [Reason(code, Path(part.subject).name, f"it is {part.decision}: {why}")]


def _joined(own: Decision, adapters: Sequence[Decision]) -> Decision:
    """The decision over a model and adapters for it: none better than the worst of them."""
    reasons = grounds([reason for part in adapters for reason in _unfit(part)])
    if not reasons:
        return own.model_copy(update={"parts": (*own.parts, *adapters)})
    worst = "refused" if "refused" in (own.decision, *(part.decision for part in adapters)) else "incomplete"
    rules = tuple(rule for rule in own.rules if rule.rule != "base")
    ruling = Ruling(rule="base", outcome="broken" if worst == "refused" else "undecided", reasons=reasons)
    return own.model_copy(
        update={
            "decision": worst,
            "reasons": (*own.reasons, *reasons),
            "rules": (*rules, ruling),
            "parts": (*own.parts, *adapters),
        }
    )
