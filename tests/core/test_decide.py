"""From measures to findings to a verdict."""

from typing import Any

import pytest

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.decide import decide, exceeds, triggers_found, verdict
from ostiary.core.records import (
    Candidate,
    ClassScore,
    Evidence,
    Finding,
    FormName,
    GuardEvidence,
    Level,
    MethodResult,
    ModelEvidence,
    Rate,
    RatesEvidence,
    RepairEvidence,
    SampleEvidence,
    Suspect,
)

CLASSES = tuple("abcdef")
LIMITS = (Limit(measure="index", low=2.0), Limit(measure="share", high=0.4))
CARD = Card(id="scan.m", summary="s", paper="p", needs=Needs(), cost="c", code="OS201", limits=LIMITS)
HIGH, LOW = {"index": 3.0, "share": 0.1}, {"index": 0.5, "share": 0.1}


def rows(*found: int, high: dict[str, float] = HIGH) -> tuple[ClassScore, ...]:
    return tuple(
        ClassScore(label=label, score=1.0, measures=high if label in found else LOW) for label in range(len(CLASSES))
    )


def candidate(target: int, k: int, n: int) -> Candidate:
    return Candidate(
        subject=f"class:{target}",
        target=target,
        score=1.0,
        size=9.0,
        flip_search=Rate(k=n, n=n),
        flip_held_out=Rate(k=k, n=n),
        artifact="m",
    )


def scanned(*found: int, candidates: tuple[Candidate, ...] = (), examined: int = 6) -> ModelEvidence:
    names = tuple(f"class:{label}" for label in range(examined))
    return ModelEvidence(score=1.0, per_class=rows(*found), candidates=candidates, examined=names)


def levels(findings: tuple[Finding, ...]) -> list[tuple[str, Level, bool]]:
    return [(finding.subject, finding.level, finding.confirmed) for finding in findings]


@pytest.mark.parametrize(
    ("measures", "counts"),
    [
        (HIGH, True),
        ({"index": 3.0, "share": 0.5}, False),
        ({"index": 1.0, "share": 0.1}, False),
        ({"index": 3.0}, False),
        ({}, False),
    ],
)
def test_limits_are_a_conjunction_of_measured_values(measures: dict[str, float], counts: bool) -> None:
    assert exceeds(ClassScore(label=0, score=1.0, measures=measures), LIMITS) is counts
    assert not exceeds(ClassScore(label=0, score=1.0, measures=measures), ())


def test_a_trigger_is_confirmed_by_the_low_end_of_its_held_out_rate() -> None:
    confirmed = decide(scanned(2, candidates=(candidate(2, 50, 50),)), CARD, CLASSES)
    assert levels(confirmed) == [("class:2", "backdoor", True)]
    assert (confirmed[0].score, confirmed[0].threshold, confirmed[0].code) == (3.0, 2.0, "OS201")
    assert "flips 50 of 50 held-out trusted samples" in confirmed[0].message and "(c)" in confirmed[0].message
    # 4 of 4 flip, but four samples prove little: the interval begins at 0.51.
    assert levels(decide(scanned(2, candidates=(candidate(2, 4, 4),)), CARD, CLASSES)) == [
        ("class:2", "suspect", False)
    ]
    assert levels(decide(scanned(2), CARD, CLASSES)) == [("class:2", "suspect", False)]
    # A confirmed trigger of a class that does not stand out is no finding.
    assert decide(scanned(candidates=(candidate(2, 50, 50),)), CARD, CLASSES) == ()
    assert levels(decide(scanned(2, candidates=(candidate(1, 50, 50),)), CARD, CLASSES)) == [
        ("class:2", "suspect", False)
    ]


@pytest.mark.parametrize(
    ("form", "words"), [("frequencies", "an added change of 9.0 frequencies"), ("warp", "a warp by 9.00")]
)
def test_only_a_patch_is_confirmed_but_every_form_is_handed_to_repairs(form: FormName, words: str) -> None:
    evidence = scanned(2, candidates=(candidate(2, 50, 50).model_copy(update={"form": form}),))
    findings = decide(evidence, CARD, CLASSES)
    assert levels(findings) == [("class:2", "suspect", False)] and words in findings[0].message
    kept = result().model_copy(update={"evidence": evidence, "findings": findings})
    assert triggers_found(kept) == evidence.candidates
    other = scanned(2, candidates=(candidate(1, 50, 50),))
    unsuspected = result().model_copy(update={"evidence": other, "findings": decide(other, CARD, CLASSES)})
    assert triggers_found(unsuspected) == (), "the trigger of a class that is no finding"
    patch = scanned(2, candidates=(candidate(2, 50, 50),))
    kept = result().model_copy(update={"evidence": patch, "findings": decide(patch, CARD, CLASSES)})
    assert triggers_found(kept) == patch.candidates


def test_a_trigger_of_one_pair_names_its_source() -> None:
    one = candidate(2, 50, 50).model_copy(update={"source": 1})
    (found,) = decide(scanned(2, candidates=(one,)), CARD, CLASSES)
    assert found.subject == "class:2" and "samples of class 1 (b)" in found.message


@pytest.mark.parametrize(("k", "level"), [(50, "backdoor"), (30, "suspect")])
def test_a_trigger_of_the_whole_model_is_confirmed_like_any_other(k: int, level: str) -> None:
    one = candidate(2, k, 50).model_copy(update={"subject": "model", "target": None, "shift": 3})
    measures = {**HIGH, "size_ratio": 9.0}
    evidence = ModelEvidence(score=9.0, measures=measures, per_class=(), candidates=(one,), examined=("model",))
    (found,) = decide(evidence, CARD, CLASSES)
    assert (found.subject, found.level) == ("model", level)
    assert "3 further on" in found.message and f"moves {k} of 50" in found.message
    kept = result().model_copy(update={"evidence": evidence, "findings": (found,)})
    assert triggers_found(kept) == (one,)


def test_a_finding_without_a_trigger_names_its_measure_only() -> None:
    (found,) = decide(scanned(2), CARD, CLASSES)
    assert "trigger" not in found.message and "index" in found.message and "3" in found.message


def test_the_threshold_is_the_limit_that_was_passed() -> None:
    upper = Card(
        id="scan.m",
        summary="s",
        paper="p",
        needs=Needs(),
        cost="c",
        code="OS201",
        limits=(Limit(measure="share", high=0.4), LIMITS[0]),
    )
    (found,) = decide(scanned(2), upper, CLASSES)
    assert (found.score, found.threshold) == (0.1, 0.4)


def test_a_class_without_a_name_is_numbered() -> None:
    (found,) = decide(scanned(5), CARD, CLASSES[:3])
    assert found.subject == "class:5" and "(5)" in found.message


def test_more_than_half_of_the_classes_is_one_finding_on_the_model() -> None:
    three = decide(scanned(0, 1, 2), CARD, CLASSES)
    assert [finding.subject for finding in three] == ["class:0", "class:1", "class:2"]
    four = decide(scanned(0, 1, 2, 3, candidates=(candidate(3, 50, 50),)), CARD, CLASSES)
    assert levels(four) == [
        ("model", "backdoor", True),
        ("class:0", "note", False),
        ("class:1", "note", False),
        ("class:2", "note", False),
        ("class:3", "note", True),
    ]
    assert four[0].message == "4 of 6 classes stand out at once"


def test_a_screener_is_never_more_than_suspect() -> None:
    high = {**HIGH, "n": 40.0, "suspected": 12.0}
    evidence = SampleEvidence(
        n=240, scored=240, suspected=12, per_class=rows(4, high=high), suspects=(), examined=(), artifact="m"
    )
    (found,) = decide(evidence, CARD, CLASSES)
    assert (found.subject, found.level, found.confirmed) == ("class:4", "suspect", False)
    assert "12 of 40 samples" in found.message and found.artifacts == ("m",)


def test_every_flagged_input_of_a_guard_is_a_finding() -> None:
    flagged = tuple(Suspect(id=f"in:{row}", label=0, score=0.5) for row in range(5))
    found = decide(GuardEvidence(threshold=0.1, suspects=flagged), CARD, ("a", "b"))
    assert levels(found) == [(f"sample:in:{row}", "suspect", False) for row in range(5)]
    assert found[0].threshold == 0.1


@pytest.mark.parametrize("evidence", [None, RepairEvidence(before={}, after={}), RatesEvidence(per_class=rows(1))])
def test_other_evidence_makes_no_finding(evidence: Evidence | None) -> None:
    assert decide(evidence, CARD, CLASSES) == ()


def result(*findings: Level, status: str = "ok", examined: int = 6) -> MethodResult:
    (one,) = decide(scanned(0), CARD, CLASSES)
    values: dict[str, Any] = {
        "status": status,
        "examined": tuple(f"class:{label}" for label in range(examined)),
        "findings": tuple(one.model_copy(update={"level": level}) for level in findings),
    }
    return MethodResult(
        method="scan.m",
        version="1",
        params={},
        reason=None,
        evidence=None,
        cautions=(),
        seconds=0.0,
        peak_bytes=0,
        **values,
    )


@pytest.mark.parametrize(
    ("results", "want"),
    [
        ([result()], "none-found"),
        ([result("note")], "none-found"),
        ([result("suspect")], "suspect"),
        ([result("suspect"), result("backdoor")], "backdoor"),
        ([result(status="partial")], "incomplete"),
        ([result(status="failed")], "incomplete"),
        ([result(status="skipped", examined=0)], "incomplete"),
        ([result(examined=5)], "incomplete"),
        ([result(examined=3), result(examined=5)], "incomplete"),
        ([result(examined=5), result()], "none-found"),
        ([result(status="skipped", examined=0), result()], "none-found"),
        ([result(), result(status="partial", examined=0)], "incomplete"),
        ([result(), result(status="failed", examined=0)], "incomplete"),
        ([result("suspect", status="partial", examined=2)], "suspect"),
        ([], "incomplete"),
    ],
)
def test_verdict(results: list[MethodResult], want: str) -> None:
    assert verdict(results, CLASSES) == want


def test_nothing_examined_is_not_a_pass() -> None:
    assert verdict([result(examined=0)], CLASSES) == "incomplete"
    assert verdict([result(examined=0)], ()) == "incomplete", "no classes, nothing examined"
