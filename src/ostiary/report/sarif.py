"""An outcome as SARIF 2.1.0 (OASIS, 27 March 2020), within what GitHub's code scanning takes.

Deviations, all towards being seen: a suspect is kind `fail` and level `warning`, not `review`, which viewers leave out;
what was not finished is a result of its own (OS736) beside the notification, since an upload without results closes
the alerts of the last one; locations are the whole file, named as line 1, since a location without a line is dropped.
"""

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ostiary.core.code import Code
from ostiary.core.codes import CODES
from ostiary.report.outcome import SEVERITIES, Check, Issue, Outcome

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MAX_RESULTS = 5000
"""GitHub shows no more of a run, and refuses files with more than 25,000."""
MAX_GZIP = 10_000_000
"""Bytes that GitHub takes, compressed."""
BASE = "%SRCROOT%"


def render_sarif(outcome: Outcome) -> str:
    """The outcome as one run of a SARIF file, with a final newline. Same outcome, same text.

    Of more issues than GitHub takes, the gravest are kept, and a notification says how many were left out.
    """
    ranked = sorted(outcome.issues, key=lambda issue: -SEVERITIES.index(issue.severity))
    kept = ranked[:MAX_RESULTS]
    while kept and len(gzip.compress(_render(outcome, kept, len(ranked)).encode())) > MAX_GZIP:
        kept = kept[: len(kept) // 2]
    return _render(outcome, kept, len(ranked))


def _render(outcome: Outcome, issues: Sequence[Issue], of: int) -> str:
    used = sorted({issue.code for issue in issues})
    driver = {
        "name": "Ostiary",
        "version": outcome.version,
        "semanticVersion": outcome.version,
        "rules": [_rule(code) for code in used],
    }
    run = {
        "tool": {"driver": driver},
        # GitHub replaces the results of an earlier upload of the same id, and keeps those of others beside them.
        "automationDetails": {"id": f"ostiary/{outcome.verb}/{outcome.uri}/"},
        "originalUriBaseIds": {BASE: {"description": {"text": "the folder in which the command was run"}}},
        "invocations": [_invocation(outcome, of - len(issues))],
        "columnKind": "unicodeCodePoints",
        "results": _results(issues, used),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _invocation(outcome: Outcome, left_out: int) -> dict[str, Any]:
    """How the run went; the command itself is not told, since it may name folders of this machine."""
    told = [_notification(check) for check in outcome.checks if check.status != "ok"]
    told += [_message("note", f"{code}: {text}") for code, text in outcome.notes]
    if left_out:
        text = f"{left_out} results were left out: the file would be larger than GitHub takes. The record has them all"
        told.append(_message("warning", text))
    return {
        "executionSuccessful": not outcome.gaps,
        "startTimeUtc": outcome.created,
        "toolExecutionNotifications": told,
    }


def _notification(check: Check) -> dict[str, Any]:
    level = {"skipped": "note", "partial": "warning"}.get(check.status, "error")
    return _message(level, f"{check.name}: {check.status}" + (f": {check.reason}" if check.reason else ""))


def _message(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": _plain(text)}}


def _results(issues: Sequence[Issue], used: Sequence[str]) -> list[dict[str, Any]]:
    index = {code: number for number, code in enumerate(used)}
    seen: Counter[str] = Counter()
    made = []
    for issue in issues:
        mark = fingerprint(issue)
        seen[mark] += 1
        result: dict[str, Any] = {
            "ruleId": issue.code,
            "ruleIndex": index[issue.code],
            "kind": "fail",
            "level": issue.severity,
            "message": {"text": _plain(f"{issue.about}: {issue.message}")},
            "locations": [_location(issue)],
            # The first is the only one that GitHub compares, the second is for everybody else.
            "partialFingerprints": {
                "primaryLocationLineHash": f"{mark[:16]}:{seen[mark]}",
                "ostiary/v1": f"{mark}:{seen[mark]}",
            },
        }
        if issue.measured:
            result["properties"] = dict(issue.measured)
        if issue.excuse is not None:
            why = {"kind": "external", "status": "accepted", "justification": issue.excuse}
            result["suppressions"] = [why]
        made.append(result)
    return made


def fingerprint(issue: Issue) -> str:
    """What is the same when the same is found in the same bytes again: hex of SHA-256 over code, subject and digest.

    Where no digest is known, the name of the file stands for it. Neither folder, time, number nor wording is in it.
    """
    which = issue.digest or issue.uri.rpartition("/")[2]
    return hashlib.sha256(json.dumps([issue.code, issue.key or issue.about, which]).encode()).hexdigest()


def _location(issue: Issue) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": issue.uri, "uriBaseId": BASE}, "region": {"startLine": 1}}
    return {"physicalLocation": place, "logicalLocations": [{"name": issue.about, "kind": "resource"}]}


def _rule(code: str) -> dict[str, Any]:
    known = CODES.get(code)
    if known is None:
        return {"id": code, "shortDescription": {"text": f"a finding with the code {code}"}}
    help_text = (
        f"{known.meaning}\n\nFound by: {known.method}\nFalse alarms: {known.false_alarms}\nNext step: {known.next_step}"
    )
    return {
        "id": known.id,
        "name": _pascal(known),
        "shortDescription": {"text": _plain(known.title)},
        "fullDescription": {"text": _plain(known.meaning)},
        "help": {"text": _plain(help_text)},
        "properties": {"tags": ["security", "machine-learning"]},
    }


def _pascal(code: Code) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in code.title).split()
    return "".join(word[:1].upper() + word[1:] for word in words)


def _plain(text: str) -> str:
    """Text in which nothing is a placeholder or a link: both have a syntax in plain messages, too."""
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")
