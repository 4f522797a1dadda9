"""What other scanners say of a file, each run as a program from an environment of its own and never imported.

Their answers are brought to four words. `passed` needs proof that the file was looked at: an exit code of 0 alone is
also what some of them give for a file they skipped, could not read, or did not find.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Word = Literal["flagged", "error", "skipped", "passed"]
SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one scanner says of one path: a word, in the scanner's own terms why, and seconds of wall time."""

    scanner: str
    word: Word
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    out: str
    err: str
    report: Any


@dataclass(frozen=True, slots=True)
class _Scanner:
    """How a scanner is called (`{report}` is a file that it may write) and how its answer is read."""

    arguments: tuple[str, ...]
    judge: Callable[[_Answer], tuple[Word, str]]


def ask(scanner: str, executable: Path | str, path: Path | str, *, seconds: float = SECONDS) -> Opinion:
    """What `scanner` (one of `SCANNERS`), whose program is `executable`, says of the file or folder `path`.

    A crash, a time-out, a program that is not there and an answer that cannot be read are `error`. Raises KeyError
    for an unknown scanner.
    """
    how = SCANNERS[scanner]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ostiary-") as folder:
        report = Path(folder) / "report.json"
        # The scanner works in a folder of its own, from which a relative path would lead elsewhere.
        program = str(Path(executable).absolute()) if os.sep in str(executable) else str(executable)
        call = [program, *(part.format(report=report) for part in how.arguments), str(Path(path).absolute())]
        try:
            done = subprocess.run(  # noqa: S603 - the program that the caller names
                call,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                env=_environment(folder),
            )
        except subprocess.TimeoutExpired:
            return Opinion(scanner, "error", f"no answer within {seconds:g} seconds", time.monotonic() - begun)
        except OSError as error:
            return Opinion(scanner, "error", f"cannot be run: {error.strerror}", time.monotonic() - begun)
        word, why = _read(how, done, report)
    return Opinion(scanner, word, why[:200], time.monotonic() - begun)


def _environment(home: str) -> dict[str, str]:
    """Nothing of the caller's but the path of programs; no telemetry, no cache of an earlier call."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": home,
        "CI": "1",
        "NO_COLOR": "1",
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
    }


def _read(how: _Scanner, done: "subprocess.CompletedProcess[str]", report: Path) -> tuple[Word, str]:
    text = report.read_text(encoding="utf-8", errors="replace") if report.exists() else done.stdout
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    try:
        return how.judge(_Answer(done.returncode, done.stdout, done.stderr, parsed))
    except (KeyError, TypeError, AttributeError):
        return "error", f"an answer of another form (exit code {done.returncode})"


def _failed(answer: _Answer) -> tuple[Word, str]:
    last = (answer.err.strip() or answer.out.strip()).splitlines()[-1:] or [""]
    return "error", f"exit code {answer.code} {last[0]}".rstrip()


def _picklescan(answer: _Answer) -> tuple[Word, str]:
    """0 nothing, 1 found, 2 error; 0 also for an empty folder, and with a warning for what it cannot parse."""
    if answer.code == 1 and "Infected files:" in answer.out:
        return "flagged", "infected files"
    if answer.code != 0 or "Scanned files:" not in answer.out:
        return _failed(answer)
    if "Scanned files: 0" in answer.out:
        return "skipped", "no file was scanned"
    warned = [line for line in (answer.err + answer.out).splitlines() if line.startswith(("WARNING", "ERROR"))]
    return ("error", warned[0]) if warned or answer.err.strip() else ("passed", "nothing found")


def _fickling(answer: _Answer) -> tuple[Word, str]:
    """0 nothing, 1 found, 2 not parsed; a crash of the program is 1, too."""
    if answer.code not in (0, 1) or "Traceback (most recent call last)" in answer.err:
        return _failed(answer)
    severity = answer.report["severity"] if isinstance(answer.report, dict) else answer.report[0]["severity"]
    if answer.code == 1 or severity != "LIKELY_SAFE":
        return "flagged", str(severity)
    return "passed", str(severity)


def _modelscan(answer: _Answer) -> tuple[Word, str]:
    """0 nothing, 1 found, 2 error, 3 nothing supported, 4 usage; 0 also where a file was skipped in a folder."""
    if answer.code == 1 and answer.report["summary"]["total_issues"]:
        return "flagged", f"{answer.report['summary']['total_issues']} issues"
    if answer.code == 3 and not answer.report["errors"]:
        return "skipped", "no file was scanned"
    if answer.code != 0 or answer.report["errors"]:
        return _failed(answer)
    summary = answer.report["summary"]
    # Raw values beside a pickle that it scanned, within one archive, are no files that it could scan.
    archives = {one.rpartition(":")[0] for one in summary["scanned"].get("scanned_files", ())} - {""}
    sources = [one["source"] for one in summary["skipped"]["skipped_files"]]
    left = [source for source in sources if source.rpartition(":")[0] not in archives]
    if left or not summary["scanned"]["total_scanned"]:
        return "skipped", f"{len(left)} files were skipped" if left else "no file was scanned"
    return "passed", "nothing found"


def _modelaudit(answer: _Answer) -> tuple[Word, str]:
    """0 nothing, 1 found, 2 error or nothing scanned."""
    if answer.code == 1 and answer.report["issues"]:
        return "flagged", f"{len(answer.report['issues'])} issues"
    if answer.report is not None and not answer.report["files_scanned"]:
        return "skipped", "no file was scanned"
    if answer.code != 0 or answer.report["has_errors"]:
        return _failed(answer)
    return "passed", "nothing found"


SCANNERS = {
    "picklescan": _Scanner(("--strict", "-p"), _picklescan),
    "fickling": _Scanner(("--check-safety", "--json-output", "{report}"), _fickling),
    "modelscan": _Scanner(("scan", "--show-skipped", "-r", "json", "-o", "{report}", "-p"), _modelscan),
    "modelaudit": _Scanner(("scan", "--no-cache", "--strict", "--no-whitelist", "--format", "json"), _modelaudit),
}
"""The scanners that are known, each in its strictest form."""
