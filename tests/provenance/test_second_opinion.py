"""Other scanners, played by scripts that answer as the real ones were seen to answer."""

import json
import sys
from pathlib import Path

import pytest

from ostiary.provenance.second_opinion import SCANNERS, ask

SUMMARY = "----------- SCAN SUMMARY -----------\nScanned files: {}\nInfected files: {}\n"
SCANNED = {"total_scanned": 1, "scanned_files": ["m.pt:archive/data.pkl"]}
MODELSCAN = {"summary": {"total_issues": 0, "scanned": SCANNED, "skipped": {"skipped_files": []}}, "errors": []}
MODELAUDIT = {"issues": [], "files_scanned": 1, "has_errors": False}


def skipped(source: str) -> dict[str, object]:
    summary = {**MODELSCAN["summary"], "skipped": {"skipped_files": [{"source": source}]}}  # type: ignore[dict-item]
    return {**MODELSCAN, "summary": summary}


def scanned(count: int, issues: int = 0) -> dict[str, object]:
    summary = {**MODELSCAN["summary"], "scanned": {"total_scanned": count}, "total_issues": issues}  # type: ignore[dict-item]
    return {**MODELSCAN, "summary": summary}


@pytest.fixture
def play(tmp_path: Path):
    def made(scanner: str, code: int, out: str = "", err: str = "", report: object = None, wait: float = 0) -> str:
        program = tmp_path / "scanner"
        lines = [
            f"#!{sys.executable}",
            "import sys, time",
            f"time.sleep({wait})",
            f"report = {None if report is None else json.dumps(report)!r}",
            "if report and any(one.endswith('report.json') for one in sys.argv):",
            "    open(next(one for one in sys.argv if one.endswith('report.json')), 'w').write(report)",
            "elif report:",
            "    print(report)",
            f"sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({code})",
        ]
        program.write_text("\n".join(lines))
        program.chmod(0o700)
        (tmp_path / "m.pt").write_bytes(b"N.")
        opinion = ask(scanner, program, tmp_path / "m.pt", seconds=5 if wait else 60)
        assert opinion.scanner == scanner and opinion.why and opinion.seconds > 0
        return opinion.word

    return made


TRACE = "Traceback (most recent call last):\nOSError: kit\n"


@pytest.mark.parametrize(
    ("scanner", "answer", "word"),
    [
        ("picklescan", {"code": 0, "out": SUMMARY.format(1, 0)}, "passed"),
        ("picklescan", {"code": 1, "out": SUMMARY.format(1, 1)}, "flagged"),
        ("picklescan", {"code": 2, "err": TRACE}, "error"),
        ("picklescan", {"code": 0, "out": SUMMARY.format(0, 0)}, "skipped"),
        ("picklescan", {"code": 0, "out": SUMMARY.format(1, 0), "err": "WARNING: could not parse\n"}, "error"),
        ("picklescan", {"code": 1, "err": TRACE}, "error"),
        ("picklescan", {"code": 0}, "error"),
        ("fickling", {"code": 0, "report": {"severity": "LIKELY_SAFE"}}, "passed"),
        ("fickling", {"code": 1, "report": {"severity": "OVERTLY_MALICIOUS"}}, "flagged"),
        ("fickling", {"code": 0, "report": {"severity": "SUSPICIOUS"}}, "flagged"),
        ("fickling", {"code": 1, "err": TRACE}, "error"),
        ("fickling", {"code": 2, "err": "not parsed"}, "error"),
        ("fickling", {"code": 0}, "error"),
        ("modelscan", {"code": 0, "report": MODELSCAN}, "passed"),
        ("modelscan", {"code": 0, "report": skipped("m.pt:archive/data/0")}, "passed"),
        ("modelscan", {"code": 0, "report": skipped("other.pt")}, "skipped"),
        ("modelscan", {"code": 0, "report": skipped("a:b/other.pt")}, "skipped"),
        ("modelscan", {"code": 0, "report": scanned(0)}, "skipped"),
        ("modelscan", {"code": 1, "report": scanned(1, 2)}, "flagged"),
        ("modelscan", {"code": 1, "err": TRACE}, "error"),
        ("modelscan", {"code": 3, "report": scanned(0)}, "skipped"),
        ("modelscan", {"code": 3, "report": {**scanned(0), "errors": ["kit"]}}, "error"),
        ("modelscan", {"code": 0, "report": {**MODELSCAN, "errors": ["kit"]}}, "error"),
        ("modelscan", {"code": 4, "err": "usage"}, "error"),
        ("modelaudit", {"code": 0, "report": MODELAUDIT}, "passed"),
        ("modelaudit", {"code": 1, "report": {**MODELAUDIT, "issues": [{}]}}, "flagged"),
        ("modelaudit", {"code": 2, "report": {**MODELAUDIT, "files_scanned": 0}}, "skipped"),
        ("modelaudit", {"code": 0, "report": {**MODELAUDIT, "files_scanned": 0}}, "skipped"),
        ("modelaudit", {"code": 0, "report": {**MODELAUDIT, "has_errors": True}}, "error"),
        ("modelaudit", {"code": 1, "err": TRACE}, "error"),
        ("modelaudit", {"code": 0, "out": "all well"}, "error"),
    ],
)
def test_answers_are_brought_to_four_words(play, scanner: str, answer: dict, word: str) -> None:
    assert play(scanner, **answer) == word


@pytest.mark.parametrize("scanner", SCANNERS)
def test_no_answer_is_an_error(play, scanner: str, tmp_path: Path) -> None:
    assert ask(scanner, tmp_path / "nowhere", tmp_path / "m.pt").word == "error"
    assert play(scanner, code=-9) == "error"


def test_a_relative_path_is_that_of_the_caller(play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert play("picklescan", 0, out=SUMMARY.format(1, 0)) == "passed"
    monkeypatch.chdir(tmp_path)
    assert ask("picklescan", "./scanner", "m.pt").word == "passed"


def test_a_time_out_is_an_error(play) -> None:
    assert play("picklescan", 0, out=SUMMARY.format(1, 0), wait=30) == "error"
