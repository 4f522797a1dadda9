"""One method, whatever happens."""

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from ostiary.core.card import Card, Have, Limit, Needs
from ostiary.core.errors import DataError, FormatError, ModelError, NotMet, OstiaryError, OutOfTime, OutputError
from ostiary.core.execute import Outcome, execute, params_of
from ostiary.core.records import ClassScore, MethodResult, ModelEvidence, RatesEvidence
from ostiary.core.run import Run

CLASSES = ("a", "b", "c")


@dataclass(frozen=True, kw_only=True)
class Stub:
    """Does what `act` does; `act` is no hyper-parameter."""

    card: ClassVar[Card] = Card(
        id="scan.stub",
        summary="s",
        paper="p",
        needs=Needs(access="labels"),
        cost="c",
        version="7",
        code="OS201",
        limits=(Limit(measure="index", low=2.0),),
    )

    act: Any = None
    steps: int = 5
    rate: float = 0.5
    patch: str = "x"
    fast: bool = True
    layer: str | None = None

    def scan(self, *subjects: Any, run: Run) -> Any:
        return self.act(*subjects, run)


def evidence(examined: int = 3, index: float = 0.0) -> ModelEvidence:
    names = tuple(f"class:{label}" for label in range(examined))
    row = ClassScore(label=1, score=index, measures={"index": index})
    return ModelEvidence(score=index, per_class=(row,), examined=names)


def go(act: Any, run: Run | None = None, **named: Any) -> Outcome:
    have = named.pop("have", Have(access="labels"))
    return execute(Stub(act=act), "subject", run=run or Run(), have=have, classes=CLASSES, **named)


def test_what_a_method_measures_is_kept() -> None:
    def act(subject: str, run: Run) -> ModelEvidence:
        assert subject == "subject"
        run.caution("OS901", "few")
        time.sleep(0.01)
        return evidence(index=3.0)

    outcome = go(act)
    result = outcome.result
    assert (result.method, result.version, result.status, result.reason) == ("scan.stub", "7", "ok", None)
    assert result.params == {"steps": 5, "rate": 0.5, "patch": "x", "fast": True, "layer": None}
    assert result.examined == ("class:0", "class:1", "class:2") and outcome.value == result.evidence
    assert [finding.subject for finding in result.findings] == ["class:1"]
    assert [caution.code for caution in result.cautions] == ["OS901"]
    assert 0.01 <= result.seconds < 5 and result.peak_bytes > 2**20
    assert MethodResult.model_validate_json(result.model_dump_json()) == result


def test_params_are_the_plain_fields() -> None:
    assert params_of(Stub(act=print, steps=9))["steps"] == 9
    assert "act" not in params_of(Stub(act=print))


def test_unmet_needs_are_skipped_before_any_work() -> None:
    outcome = go(lambda *_: pytest.fail("was called"), have=Have(access="none"))
    assert (outcome.result.status, outcome.result.reason) == (
        "skipped",
        "needs model access 'labels', has 'none'",
    )
    assert outcome.value is None and outcome.result.evidence is None and outcome.result.examined == ()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RuntimeError("boom"), "failed", "RuntimeError: boom"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError: "),
        (DataError("bad labels", hint="sort them"), "failed", "bad labels; sort them"),
        (NotMet("needs a trigger"), "skipped", "needs a trigger"),
    ],
)
def test_what_a_method_throws_is_recorded(
    error: Exception, status: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OSTIARY_DEBUG", raising=False)

    def act(subject: str, run: Run) -> None:
        run.caution("OS901", "few")
        raise error

    result = go(act).result
    assert (result.status, result.reason) == (status, reason)
    assert result.evidence is None and result.findings == () and len(result.cautions) == 1


def test_debug_lets_the_exception_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        go(lambda *_: 1 / 0)


def test_an_interrupt_is_partial() -> None:
    def act(subject: str, run: Run) -> None:
        raise KeyboardInterrupt

    outcome = go(act)
    assert outcome.interrupted and outcome.value is None
    assert (outcome.result.status, outcome.result.reason) == ("partial", "interrupted")


def test_a_deadline_that_cut_coverage_is_partial() -> None:
    late = Run(deadline=time.monotonic() - 1)
    cut = go(lambda *_: evidence(examined=2), run=late).result
    assert (cut.status, cut.reason) == ("partial", "the time limit cut coverage")
    assert cut.evidence is not None and cut.examined == ("class:0", "class:1")
    assert go(lambda *_: evidence(examined=3), run=late).result.status == "ok"
    assert go(lambda *_: evidence(examined=2)).result.status == "ok"


@pytest.mark.parametrize("value", [None, 3, {"kind": "model"}, "ok"])
def test_a_method_that_returns_no_evidence_failed(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSTIARY_DEBUG", raising=False)
    result = go(lambda *_: value).result
    assert result.status == "failed" and result.evidence is None
    assert result.reason is not None and type(value).__name__ in result.reason


def test_summarise_makes_the_evidence_and_its_failure_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSTIARY_DEBUG", raising=False)
    made = object()
    kept = go(lambda *_: made, summarise=lambda value, run: RatesEvidence(measures={"same": float(value is made)}))
    assert kept.value is made and kept.result.evidence == RatesEvidence(measures={"same": 1.0})
    assert go(lambda *_: made, summarise=lambda value, run: {}["x"]).result.status == "failed"


def test_call_names_the_verb() -> None:
    @dataclass(frozen=True)
    class Fitter:
        card: ClassVar[Card] = Stub.card

        def fit(self, subject: str, /, *, run: Run) -> RatesEvidence:
            return RatesEvidence()

    assert execute(Fitter(), "s", run=Run(), have=Have(access="labels"), call="fit").result.status == "ok"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Ends with the error it is given."""

    card: ClassVar[Card] = Card(id="scan.ends", summary="", paper="", needs=Needs(), cost="")

    error: Any

    def scan(self, *args: Any, run: Run) -> ModelEvidence:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "raised"),
    [
        (FormatError("torn"), "failed", True),
        (DataError("odd"), "failed", True),
        (OutputError("full"), "failed", True),
        (ModelError("diverged"), "failed", False),
        (OutOfTime("late"), "partial", False),
    ],
)
def test_what_is_wrong_with_an_input_is_handed_on_and_what_is_wrong_with_a_method_is_not(
    error: OstiaryError, status: str, raised: bool
) -> None:
    outcome = execute(Ends(error=error), run=Run(), have=Have())
    assert outcome.result.status == status and outcome.result.reason == str(error)
    assert (outcome.error is error) is raised


def test_work_that_is_worth_nothing_unfinished_ends_at_the_deadline() -> None:
    run = Run(deadline=0.0)
    with pytest.raises(OutOfTime, match="at 1 of 3"):
        run.step(1, 3, "work")
    run.step(3, 3, "work")
