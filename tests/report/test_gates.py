"""SARIF and JUnit: valid, stable, within the limits of those who read them, and never an empty pass."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from gate_case import messages, run_of, suite_of, validator
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.cli.common import exit_code
from ostiary.core.codes import CODES
from ostiary.core.records import Finding, MethodResult, Record
from ostiary.provenance.decision import Decision, Ground, Ruling
from ostiary.report import of_decision, of_record, render_junit, render_sarif, sarif
from ostiary.report.outcome import relative_uri
from ostiary.report.sarif import fingerprint

KINDS = ("scan", "twin", "screen", "repair", "evaluate", "guard", "harden")


def changed(record: Record, number: int = 0, **update: Any) -> Record:
    """The record with a result changed, and its coverage with it."""
    results = list(record.results)
    results[number] = results[number].model_copy(update=update)
    return covered(record, tuple(results))


def covered(record: Record, results: tuple[MethodResult, ...], **update: Any) -> Record:
    names = {
        status: tuple(one.method for one in results if one.status == status)
        for status in ("ok", "partial", "skipped", "failed")
    }
    coverage = record.coverage.model_copy(update={**names, "asked": tuple(one.method for one in results)})
    return record.model_copy(update={"results": results, "coverage": coverage, **update})


def decision(word: str, *reasons: tuple[str, str, str], **fields: Any) -> Decision:
    grounds = tuple(Ground(code=code, subject=subject, message=text) for code, subject, text in reasons)
    values = {"kind": "verify", "created": "2026-02-11T10:15:00+00:00", "subject": "models/net", **fields}
    return Decision.model_construct(decision=word, reasons=grounds, **values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_record_is_valid_and_the_same_twice(make, kind):
    record, _ = make(kind)
    text = render_sarif(of_record(record))
    run = run_of(text)
    assert text == render_sarif(of_record(record)) and text.endswith("}\n")
    assert run["invocations"][0]["executionSuccessful"] is True
    findings = [finding for result in record.results for finding in result.findings]
    assert [one["ruleId"] for one in run["results"]] == [finding.code for finding in findings]
    suite = suite_of(render_junit(of_record(record)))
    assert len(suite.findall("testcase/failure")) == len(findings) and not suite.findall("testcase/error")


def test_the_schema_refuses_what_is_not_sarif(make):
    log = json.loads(render_sarif(of_record(make("scan")[0])))
    log["runs"][0]["results"][0]["level"] = "grave"
    assert list(validator().iter_errors(log))


def test_rules_come_from_the_catalogue_with_help(make):
    record, _ = make("scan")
    run = run_of(render_sarif(of_record(record)))
    (result,) = run["results"]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert rule["id"] == result["ruleId"] == "OS201"
    assert CODES["OS201"].next_step in rule["help"]["text"] and len(rule["properties"]["tags"]) <= 20
    assert result["properties"]["confirmed"] is True and result["properties"]["threshold"] == 2.0
    unknown = record.results[0].findings[0].model_copy(update={"code": "OS000"})
    run = run_of(render_sarif(of_record(changed(record, findings=(unknown,)))))
    assert run["tool"]["driver"]["rules"][0]["id"] == "OS000"


@pytest.mark.parametrize(("level", "told"), [("backdoor", "error"), ("suspect", "warning"), ("note", "note")])
def test_levels(make, level, told):
    record, _ = make("scan")
    finding = record.results[0].findings[0].model_copy(update={"level": level})
    outcome = of_record(changed(record, findings=(finding,)))
    (result,) = run_of(render_sarif(outcome))["results"]
    assert (result["level"], result["kind"]) == (told, "fail")
    for lowest, fails in (("note", True), ("warning", level != "note"), ("error", level == "backdoor")):
        suite = suite_of(render_junit(outcome, lowest=lowest))
        assert bool(suite.findall("testcase/failure")) is fails
        assert fails or finding.message in (suite.findtext("testcase/system-out") or "")


def test_skips_are_told_and_a_skip_by_name_is_a_gap(make):
    record, _ = make("twin")
    run = run_of(render_sarif(of_record(record)))
    assert any("scan.reference-bank: skipped: needs reference models" in text for text in messages(run))
    assert run["results"] == [] and run["invocations"][0]["executionSuccessful"] is True
    suite = suite_of(render_junit(of_record(record)))
    assert [one.get("message") for one in suite.iter("skipped")] == ["needs reference models of the same architecture"]
    assert len(suite.findall("testcase")) == 11 and exit_code(record, "suspect", named=False) == 0
    named = of_record(record, named=True)
    assert [one["ruleId"] for one in run_of(render_sarif(named))["results"]] == ["OS736"]
    assert len(suite_of(render_junit(named)).findall("testcase/error")) == 1
    assert exit_code(record, "suspect", named=True) == 3


GAPS = {
    "failed": {"status": "failed", "reason": "ValueError: no", "evidence": None},
    "partial": {"status": "partial", "reason": "the time limit passed"},
    "nothing ran": {"status": "skipped", "reason": "needs another model"},
    "incomplete": {},
    "interrupted": {},
}


@pytest.mark.parametrize("gap", GAPS)
def test_what_was_not_finished_is_no_empty_pass(make, gap):
    record, _ = make("twin")
    twin = of_record(record)
    record = changed(record, **GAPS[gap])
    if gap in ("incomplete", "nothing ran"):
        record = record.model_copy(update={"verdict": "incomplete"})
    record = record.model_copy(update={"interrupted": gap == "interrupted"})
    run, suite = run_of(render_sarif(of_record(record))), suite_of(render_junit(of_record(record)))
    assert run["invocations"][0]["executionSuccessful"] is False
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [("OS736", "error")]
    assert suite.findall("testcase/error")
    assert exit_code(record, "suspect", named=False) == (130 if gap == "interrupted" else 3)
    assert exit_code(make("twin")[0], "suspect", named=False) == 0
    assert not suite_of(render_junit(twin)).findall("testcase/error")


def test_a_finding_of_a_scan_that_failed_stays(make):
    record, _ = make("scan")
    failed = record.results[1].model_copy(update={"status": "failed", "reason": "MemoryError"})
    record = covered(record, (record.results[0], failed))
    assert {one["ruleId"] for one in run_of(render_sarif(of_record(record)))["results"]} == {"OS201", "OS736"}
    suite = suite_of(render_junit(of_record(record)))
    assert len(suite.findall("testcase/failure")) == 1 and len(suite.findall("testcase/error")) == 2


def test_a_refused_repair_is_a_finding_and_a_repair_is_none(make):
    record, _ = make("repair")
    assert run_of(render_sarif(of_record(record)))["results"] == []
    refused = record.model_copy(update={"config": {"refused": "accuracy fell by 4.1 points"}})
    (result,) = run_of(render_sarif(of_record(refused)))["results"]
    assert result["ruleId"] == "OS737" and "fell by 4.1 points" in result["message"]["text"]
    assert len(suite_of(render_junit(of_record(refused))).findall("testcase/failure")) == 1


def test_fingerprints_are_of_what_was_found_and_in_what(make):
    record, _ = make("scan")
    (issue,) = of_record(record).issues
    finding = record.results[0].findings[0]
    same = {
        "another time": record.model_copy(update={"created": "2027-01-01T00:00:00Z", "id": "x", "seed": 8}),
        "another folder": record.model_copy(update={"command": ("ostiary", "scan", f"a/b/{record.subject}")}),
        "another number": changed(record, findings=(finding.model_copy(update={"message": "99 %", "score": 9.0}),)),
    }
    for what, other in same.items():
        assert fingerprint(of_record(other).issues[0]) == fingerprint(issue), what
    differs = {
        "another model": record.model_copy(update={"digests": {"model": "sha256:00"}}),
        "another class": changed(record, findings=(finding.model_copy(update={"subject": "class:3"}),)),
        "another code": changed(record, findings=(finding.model_copy(update={"code": "OS203"}),)),
    }
    for what, other in differs.items():
        assert fingerprint(of_record(other).issues[0]) != fingerprint(issue), what
    twice = run_of(render_sarif(of_record(changed(record, findings=(finding, finding)))))["results"]
    marks = [one["partialFingerprints"]["primaryLocationLineHash"] for one in twice]
    assert marks[0].endswith(":1") and marks[1].endswith(":2") and marks[0][:16] == marks[1][:16]


def test_no_more_than_github_takes(make, monkeypatch):
    assert sarif.MAX_RESULTS == 5000 and sarif.MAX_GZIP == 10_000_000
    monkeypatch.setattr(sarif, "MAX_RESULTS", 60)
    record, _ = make("scan")
    finding = record.results[0].findings[0]
    light = [finding.model_copy(update={"level": "note", "subject": f"sample:{k}"}) for k in range(60)]
    outcome = of_record(changed(record, findings=(*light, finding)))
    run = run_of(render_sarif(outcome))
    assert len(run["results"]) == 60 and run["results"][0]["level"] == "error"
    assert any(text.startswith("1 results were left out") for text in messages(run))
    monkeypatch.setattr(sarif, "MAX_GZIP", 3000)
    small = run_of(render_sarif(outcome))
    assert 0 < len(small["results"]) < 60 and small["results"][0]["level"] == "error"
    assert any("results were left out" in text for text in messages(small))
    assert not any("left out" in text for text in messages(run_of(render_sarif(of_record(record)))))


PATHS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["..", ".", "", "a b", "c:", "é", "x#?", "%2e", "http:", "/"]), max_size=6).map("/".join),
)


@settings(deadline=None)
@given(PATHS)
def test_locations_are_relative_whatever_the_path(path):
    uri = relative_uri(path)
    assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", uri), uri
    assert not uri.startswith("/") and ".." not in uri.split("/")


def test_locations_name_the_file_and_no_folder_of_this_machine(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record, _ = make("scan")
    inside = (record.subject, f"./models/{record.subject}", str(tmp_path / "models" / record.subject))
    outside = (
        f"/home/somebody/{record.subject}",
        f"../../{record.subject}",
        "https://u:secret@h.example/v1?key=secret",
    )
    told = []
    for path in (*inside, *outside):
        subject = path if "://" in path else record.subject
        found = of_record(record.model_copy(update={"command": ("ostiary", "scan", path), "subject": subject}))
        told.append(found.uri)
        text = json.dumps(run_of(render_sarif(found))["results"])
        assert "somebody" not in text and str(tmp_path) not in text
    name = record.subject
    assert told == [name, f"models/{name}", f"models/{name}", name, name, "h.example/v1"]


HOSTILE = st.text(st.characters(exclude_categories=()), max_size=60)


@settings(max_examples=30, deadline=None)
@given(HOSTILE)
def test_hostile_text_is_shown_and_breaks_nothing(text):
    outcome = of_decision(decision("refused", ("OS707", text, text), ("OS725", "a\x00b", text), subject=text or "x"))
    assert len(run_of(render_sarif(outcome))["results"]) == 2
    suite = suite_of(render_junit(outcome))
    told = "".join([*suite.itertext(), *(value for one in suite.iter() for value in one.attrib.values())])
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\u202e]", told)


def test_links_and_placeholders_are_inert():
    outcome = of_decision(decision("refused", ("OS707", "x", "see [here](https://evil.example) {0}")))
    (result,) = run_of(render_sarif(outcome))["results"]
    assert result["message"]["text"] == "x: see [here] (https://evil.example) {{0}}"


def test_hostile_names_in_a_record(make):
    record, _ = make("scan")
    evil = "\x1b[31m<![CDATA[ ]]> \ud800 \u202e"
    result = record.results[0].model_copy(update={"method": f"scan.{evil}", "reason": evil, "status": "partial"})
    coverage = record.coverage.model_copy(update={"classes": (evil,) * 10})
    outcome = of_record(covered(record.model_copy(update={"subject": evil, "coverage": coverage}), (result,)))
    assert "\x1b" not in render_sarif(outcome) and run_of(render_sarif(outcome))
    assert suite_of(render_junit(outcome)) is not None


def test_decisions():
    passed = of_decision(decision("accepted", root="ab" * 32))
    run, suite = run_of(render_sarif(passed)), suite_of(render_junit(passed))
    assert run["results"] == [] and run["invocations"][0]["executionSuccessful"] is True
    assert len(suite) == 1 and len(suite[0]) == 0
    refused = of_decision(decision("refused", ("OS707", "config.json", "altered"), ("OS725", "signature", "nobody")))
    run, suite = run_of(render_sarif(refused)), suite_of(render_junit(refused))
    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in run["results"]]
    assert uris == ["models/net/config.json", "models/net"]
    assert run["invocations"][0]["executionSuccessful"] is True, "a refusal is what the command is for"
    assert len(suite) == 2 and len(suite.findall("testcase/failure")) == 2


@pytest.mark.parametrize("kind", ["load", "admit"])
def test_an_exemption_is_a_suppression_with_its_reason(kind):
    found = decision("exempted", ("OS762", "w", "holds NaN"), exemption="masks; ticket 12", kind=kind)
    (result,) = run_of(render_sarif(of_decision(found)))["results"]
    assert result["suppressions"][0]["justification"] == "masks; ticket 12"
    suite = suite_of(render_junit(of_decision(found)))
    assert not suite.findall("testcase/failure") and "ticket 12" in (suite.findtext("testcase/system-out") or "")


@pytest.mark.parametrize("word", ["incomplete", "refused", "maybe"])
def test_a_decision_that_is_no_pass_and_says_no_reason_is_unfinished(word):
    outcome = of_decision(decision(word, kind="admit"))
    run = run_of(render_sarif(outcome))
    assert run["invocations"][0]["executionSuccessful"] is False
    assert [one["ruleId"] for one in run["results"]] == ["OS736"]
    suite = suite_of(render_junit(outcome))
    assert len(suite.findall("testcase/error")) == 1 == len(suite)


def ruling(rule: str, outcome: str, *reasons: tuple[str, str, str]) -> Ruling:
    grounds = tuple(Ground(code=code, subject=subject, message=text) for code, subject, text in reasons)
    return Ruling.model_construct(rule=rule, outcome=outcome, reasons=grounds)


def test_each_rule_of_a_policy_is_a_case():
    old, base = ("OS777", "a.scan", "it ended"), ("OS787", "base", "it is refused: OS707")
    rules = (ruling("signature", "met"), ruling("scan", "broken", old), ruling("bom", "not-asked"))
    found = of_decision(decision("refused", old, base, kind="admit", rules=rules))
    assert [one["ruleId"] for one in run_of(render_sarif(found))["results"]] == ["OS777", "OS787"]
    suite = suite_of(render_junit(found))
    cases = {case.get("classname"): [one.tag for one in case] for case in suite.findall("testcase")}
    told = {"signature": [], "scan": ["failure"], "bom": ["skipped"]}
    assert cases == {**{f"ostiary.admit.{rule}": tags for rule, tags in told.items()}, "ostiary.admit": ["failure"]}


def test_an_admitted_model_passes_under_that_word():
    assert run_of(render_sarif(of_decision(decision("admitted", kind="admit"))))["results"] == []


def test_no_user_or_folder_of_this_machine_is_written(make):
    text = "".join(render_sarif(of_record(make(kind)[0])) + render_junit(of_record(make(kind)[0])) for kind in KINDS)
    assert os.getcwd() not in text and str(Path.home()) + "/" not in text
    assert isinstance(make("scan")[0].results[0].findings[0], Finding)
