"""A record in the making."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ostiary.core.card import Card, Have, Limit, Needs
from ostiary.core.decide import WITHIN_MODEL
from ostiary.core.records import Candidate, ClassScore, Kind, ModelEvidence, Rate, RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options, Session
from ostiary.core.store import load_artifact, read_record

CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@dataclass(frozen=True, kw_only=True)
class Stub:
    card: ClassVar[Card] = Card(
        id="scan.stub",
        summary="s",
        paper="p",
        needs=Needs(access="labels"),
        cost="c",
        code="OS201",
        limits=(Limit(measure="index", low=2.0),),
    )

    index: float = 0.0
    end: str = ""

    def scan(self, subject: Any, /, *, run: Run) -> ModelEvidence:
        run.artifact("stub", torch.full((2,), self.index))
        run.caution("OS901", "few")
        if self.end == "interrupt":
            raise KeyboardInterrupt
        if self.end == "fail":
            raise RuntimeError("boom")
        rows = tuple(ClassScore(label=c, score=0.0, measures={"index": self.index * (c == 1)}) for c in range(3))
        return ModelEvidence(score=self.index, per_class=rows, examined=("class:0", "class:1", "class:2"))


@dataclass(frozen=True, kw_only=True)
class Bare:
    card: ClassVar[Card] = Card(id="train.bare", summary="s", paper="p", needs=Needs(), cost="c")

    def train(self, /, *, run: Run) -> RatesEvidence:
        return RatesEvidence()


def session(kind: Kind = "scan", **options: Any) -> Session:
    return Session(kind, "m.pt", CLASSES, Options(**options), {"preset": "quick"}, {"model": "d"}, ("scan.stub",))


def test_the_record_is_on_disk_after_each_method() -> None:
    s = session(seed=5, command=("ostiary", "scan", "m.pt"))
    begun, _ = read_record(s.folder.id)
    assert begun.results == () and begun.verdict == "incomplete" and begun.coverage.asked == ("scan.stub",)
    s.execute(Stub(), "x", have=Have(access="labels"))
    middle, folder = read_record(s.folder.id)
    assert len(middle.results) == 1 and middle.verdict == "none-found"
    assert load_artifact(middle, folder, "stub").tolist() == [0.0, 0.0]
    s.execute(Stub(index=3.0), "x", have=Have(access="labels"))
    s.execute(Stub(end="fail"), "x", have=Have(access="labels"))
    s.execute(Stub(), "x", have=Have(access="none"))
    final = s.finish()
    assert read_record(s.folder.id) == (final, folder)
    assert [result.status for result in final.results] == ["ok", "ok", "failed", "skipped"]
    assert final.verdict == "suspect" and final.coverage.ok == ("scan.stub",) * 2
    assert final.coverage.failed == final.coverage.skipped == ("scan.stub",) and final.coverage.partial == ()
    assert (final.seed, final.command, final.subject) == (5, ("ostiary", "scan", "m.pt"), "m.pt")
    assert final.id == s.folder.id and final.environment.device == "cpu" and final.environment.threads >= 1
    assert Record.model_validate_json(final.to_json()) == final


def test_cautions_stay_where_they_belong() -> None:
    s = session()
    s.caution("OS903", "near chance")
    s.execute(Stub(), "x", have=Have(access="labels"))
    record = s.finish()
    assert [caution.code for caution in record.results[0].cautions] == ["OS901"]
    assert [caution.code for caution in record.cautions] == ["OS903", "OS902"]


def test_limits_are_written_down() -> None:
    s = session()
    s.execute(Stub(), "x", have=Have(access="labels"))
    record = s.finish()
    assert record.config["limits"] == {"scan.stub": {"index": {"low": 2.0, "high": None}}}
    assert record.config["preset"] == "quick" and record.calibration == WITHIN_MODEL
    bare = session("train")
    bare.execute(Bare(), have=Have())
    plain = bare.finish()
    assert plain.calibration is None and plain.cautions == () and "limits" not in plain.config


@pytest.mark.parametrize(
    ("index", "verdict"), [(0.0, "incomplete"), (3.0, "suspect")], ids=["nothing-yet", "found-before"]
)
def test_an_interrupted_run_is_never_a_pass(index: float, verdict: str) -> None:
    s = session()
    s.execute(Stub(index=index), "x", have=Have(access="labels"))
    outcome = s.execute(Stub(end="interrupt"), "x", have=Have(access="labels"))
    assert outcome.interrupted and s.interrupted
    record, _ = read_record(s.folder.id)
    assert record.interrupted and record.verdict == verdict
    assert [result.status for result in record.results] == ["ok", "partial"]
    assert s.finish().verdict == verdict


@dataclass(frozen=True, kw_only=True)
class Sure(Stub):
    """Recovers a trigger that flips all held-out samples."""

    def scan(self, subject: Any, /, *, run: Run) -> ModelEvidence:
        flips = Rate(k=100, n=100)
        one = Candidate(
            subject="class:1",
            target=1,
            score=3.0,
            size=2.0,
            form="patch",
            flip_search=flips,
            flip_held_out=flips,
            artifact="stub",
        )
        return Stub(index=3.0).scan(subject, run=run).model_copy(update={"candidates": (one,)})


@pytest.mark.parametrize("exhaustive", [True, False])
def test_a_confirmed_backdoor_ends_a_cascade(exhaustive: bool) -> None:
    s = session()
    s.execute_all([Stub(index=3.0), Sure(), Stub()], "x", have=Have(access="labels"), exhaustive=exhaustive)
    record = s.finish()
    assert record.verdict == "backdoor" and read_record(s.folder.id)[0].verdict == "backdoor"
    assert [result.status for result in record.results] == ["ok", "ok", "ok" if exhaustive else "skipped"]
    if not exhaustive:
        assert "confirmed already" in (record.results[-1].reason or "") and record.coverage.skipped == ("scan.stub",)


def test_ctrl_c_ends_all() -> None:
    s = session()
    s.execute_all([Stub(end="interrupt"), Stub()], "x", have=Have(access="labels"))
    assert s.interrupted and len(s.finish().results) == 1


@pytest.mark.parametrize(("classes", "cautioned"), [(2, False), (3, True)])
def test_a_scan_that_names_many_classes_says_so(classes: int, cautioned: bool) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Loud(Stub):
        def scan(self, subject: Any, /, *, run: Run) -> ModelEvidence:
            rows = tuple(ClassScore(label=c, score=0.0, measures={"index": 3.0 * (c < classes)}) for c in range(8))
            return ModelEvidence(score=3.0, per_class=rows, examined=())

    s = Session("scan", "m.pt", tuple("abcdefgh"), Options(), {}, {}, ("scan.stub",))
    s.execute(Loud(), "x", have=Have(access="labels"))
    assert ("OS914" in [caution.code for caution in s.finish().cautions]) == cautioned


def test_only_some_verbs_are_judged() -> None:
    for kind, verdict in (("scan", "incomplete"), ("screen", "incomplete"), ("repair", "incomplete")):
        assert session(kind).finish().verdict == verdict  # type: ignore[arg-type]  # a plain loop over kinds
    for kind in ("guard", "harden", "train", "evaluate"):
        assert session(kind).finish().verdict is None  # type: ignore[arg-type]  # a plain loop over kinds


def test_methods_of_a_session_share_seed_and_deadline_only() -> None:
    s = session(seed=9, time_limit=100.0)
    assert s.run.seed == 9 and s.run.deadline is not None and 90 < s.run.deadline - time.monotonic() <= 100
    s.execute(Stub(), "x", have=Have(access="labels"))
    assert s.run.artifacts == {} and s.run.cautions == []
    assert session().run.deadline is None


def test_progress_is_passed_on() -> None:
    told: list[str] = []
    s = session(progress=lambda done, total, label: told.append(label))
    s.run.child().progress(1, 2, "here")
    assert told == ["here"]


def test_a_killed_process_leaves_what_was_finished() -> None:
    s = session()
    s.execute(Stub(index=3.0), "x", have=Have(access="labels"))
    file = s.folder.path / "record.json"
    del s
    plain = json.loads(file.read_text())
    assert plain["verdict"] == "suspect" and plain["results"][0]["status"] == "ok"
