"""Whether what scanners said of these very bytes lets a model pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ostiary.core.card import FAMILIES
from ostiary.provenance.attested import MAX_STATEMENT, Said, heard, name_reasons
from ostiary.provenance.files import read_small
from ostiary.provenance.memory import SKEW
from ostiary.provenance.policy import Policy, ScanRules
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.scanned import ADVERSE, SCAN, Scan, read_scan
from ostiary.provenance.statement import ROOT
from ostiary.provenance.trust import day
from ostiary.provenance.verify import Vouched


@dataclass(frozen=True, slots=True)
class Stated:
    """A scan that trusted scanners signed, and the file that it came from."""

    where: str
    said: Said
    scan: Scan

    @property
    def root(self) -> str:
        """The root of the model that was scanned."""
        return self.said.subjects[0].digest[ROOT]

    def stands(self, now: datetime) -> bool:
        """Whether it has not ended; one of the future stands, too: it is the clock here that may be wrong."""
        return now < self.scan.expires


@dataclass(frozen=True, slots=True)
class Model:
    """What a scan is held against: the root of the bytes at hand, that of the base below them, and who signed them.

    `name` is that under which the model is to be used, for which its scanner must be trusted.
    """

    root: str
    base: str | None
    vouched: Vouched | None
    name: str


def scan_reasons(
    files: Sequence[Path], model: Model, policy: Policy, *, now: datetime, state: Path | None = None
) -> tuple[list[Reason], list[str]]:
    """Why no statement in `files` lets the model pass, and what those that do say of themselves.

    There is no reason where one lets it pass and none that still holds accuses it.

    A file that cannot be believed counts against the model even beside a good one: it may be an accusation that
    somebody damaged. Raises FormatError for one that cannot be read.
    """
    rules = policy.rules.scan
    if rules is None:
        return [], []
    if not files:
        return [Reason("OS775", "model", "the policy asks for a scan of these bytes, and none is stated")], []
    stated: list[Stated] = []
    unread: list[Reason] = []
    for file in files:
        data = read_small(file, MAX_STATEMENT)
        try:
            said = heard(data, policy.trust, "scanner", [SCAN], file.name, now=now, state=state)
            stated.append(Stated(file.name, said, read_scan(said, file.name)))
        except Refused as error:
            unread += error.reasons
    against = [_against(one, model, policy, now) for one in stated]
    passing = [one for one, reasons in zip(stated, against, strict=True) if not reasons]
    if not passing:
        return unread + [reason for reasons in against for reason in reasons], []
    accusing = [one for one in stated if one.scan.verdict in ADVERSE and one.root == model.root and one.stands(now)]
    open_ones = [one for one in accusing if not any(_takes_back(other, one) for other in passing)]
    reasons = [
        Reason("OS783", one.where, f"{_who(one)} found '{one.scan.verdict}' on {day(one.scan.scanned)}; it stands")
        for one in open_ones
    ]
    return unread + reasons, [_told(one) for one in passing]


def _against(stated: Stated, model: Model, policy: Policy, now: datetime) -> list[Reason]:
    """Why one statement does not let the model pass; what is about other bytes says nothing more."""
    where, scan, rules = stated.where, stated.scan, policy.rules.scan or ScanRules()
    if stated.root != model.root:
        return [Reason("OS776", where, f"it is about {stated.root[:12]}, these bytes are {model.root[:12]}")]
    reasons = _untimely(stated, rules, now)
    reasons += name_reasons(stated.said, policy.trust, "scanner", model.name, now, where)
    if scan.base != model.base:
        below = f"on the base {scan.base[:12]}" if scan.base else "without a base"
        reasons.append(Reason("OS776", where, f"it was scanned {below}, the base at hand is {str(model.base)[:12]}"))
    if scan.verdict in ADVERSE:
        found = "; ".join(one.message for one in scan.counterEvidence[:2])
        reasons.append(Reason("OS778", where, f"{scan.verdict}: {found}"))
    elif scan.verdict == "incomplete" or not scan.methods():
        reasons.append(Reason("OS779", where, "the scan is incomplete"))
    reasons += _inseparable(stated, model) if rules.separate else []
    if rules.min_version is not None and _numbers(scan.scanner.version) < _numbers(rules.min_version):
        reasons.append(Reason("OS781", where, f"by version {scan.scanner.version}; none below {rules.min_version}"))
    asked = [one for one in rules.families if one in FAMILIES[scan.scope.modality]]
    if missing := [one for one in asked if one not in scan.scope.familiesCovered]:
        reasons.append(Reason("OS782", where, f"nothing looked for: {', '.join(missing)}"))
    return reasons


def _inseparable(stated: Stated, model: Model) -> list[Reason]:
    """Why the scanner cannot be told from whoever signed the model."""
    if model.vouched is None:
        # With an exemption the model may still pass; who signed it is then not known to be somebody else.
        text = "nobody trusted vouches for the model, so that its signer and the scanner may be one"
        return [Reason("OS780", stated.where, text)]
    both = set(stated.said.keys) & set(model.vouched.keys) or set(stated.said.signers) & set(model.vouched.signers)
    return [Reason("OS780", stated.where, f"{_who(stated)} signed the model and the scan")] if both else []


def _untimely(stated: Stated, rules: ScanRules, now: datetime) -> list[Reason]:
    scan = stated.scan
    if max(scan.created, scan.scanned) > now + SKEW:
        return [
            Reason("OS777", stated.where, f"it is of {day(max(scan.created, scan.scanned))}, which is in the future")
        ]
    if now >= scan.expires:
        return [Reason("OS777", stated.where, f"it expired on {day(scan.expires)}")]
    if now - scan.scanned > timedelta(days=rules.max_age_days):
        return [
            Reason("OS777", stated.where, f"scanned on {day(scan.scanned)}; the limit is {rules.max_age_days:g} days")
        ]
    return []


def _takes_back(newer: Stated, accusation: Stated) -> bool:
    """Whether the same scanner looked again, at no less, and found nothing."""
    same = set(newer.said.keys) & set(accusation.said.keys)
    later = newer.scan.scanned > accusation.scan.scanned
    return bool(same) and later and accusation.scan.told() <= newer.scan.methods()


def _told(stated: Stated) -> str:
    """A scan that passed in a line: by whom, when, what it looked for, what it did not, and until when it holds."""
    scan = stated.scan
    looked, not_looked = scan.scope.familiesCovered, scan.scope.familiesNotCovered
    methods = f"{len(scan.methods())} method{'s' * (len(scan.methods()) != 1)}"
    parts = [
        f"{_who(stated)} scanned it on {day(scan.scanned)} by {methods}: {scan.verdict}",
        f"looked for {', '.join(looked) or 'no kind in every class'}",
        f"not for {', '.join(not_looked)}" if not_looked else "",
        f"holds until {day(scan.expires)}",
    ]
    return "; ".join(filter(None, parts))


def _who(stated: Stated) -> str:
    return ", ".join(stated.said.signers)


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers; what follows a number within a part does not count."""
    parts = [part[: len(part) - len(part.lstrip("0123456789"))] for part in version.split(".")[:3]]
    return tuple(int(part or 0) for part in (*parts, "", "")[:3])
