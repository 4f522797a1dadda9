"""An outcome as JUnit XML: one suite a run, one case for each method and each class, model or file that it examined."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from ostiary.report.outcome import SEVERITIES, UNFINISHED, Check, Issue, Outcome, Severity


def render_junit(outcome: Outcome, *, lowest: Severity = "warning") -> str:
    """The outcome as a JUnit file with one test suite, with a final newline. Same outcome, same text.

    Issues from `lowest` on are failures, those below stand in the output of a case that passes. Methods that were
    skipped are skipped, those that failed or stopped early are errors, and so is what was left out of the whole.
    Every text has been `show`n: of what XML cannot hold nothing is left.
    """
    suite = ET.Element("testsuite", name=f"ostiary {outcome.verb} {outcome.subject}", timestamp=_time(outcome.created))
    for check in outcome.checks:
        suite.extend(_cases(check, outcome.verb, lowest))
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite)))
    suite.set("time", f"{sum(check.seconds for check in outcome.checks):.3f}")
    notes = [f"{code}: {text}" for code, text in outcome.notes]
    if notes:
        ET.SubElement(suite, "system-out").text = "\n".join(notes)
    root = ET.Element("testsuites", name="ostiary")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _cases(check: Check, verb: str, lowest: Severity) -> Iterator[ET.Element]:
    issues = [issue for issue in check.issues if issue.code != UNFINISHED]
    examined = check.examined if check.status in ("ok", "partial") else ()
    about: dict[str, list[Issue]] = {name: [] for name in examined}
    for issue in issues:
        about.setdefault(issue.about, []).append(issue)
    for number, (name, found) in enumerate(about.items()):
        case = _case(check.name, verb, name, 0 if number else check.seconds)
        _tell(case, found, lowest)
        yield case
    if check.status != "ok":
        rest = "the rest" if about else next(iter(check.examined), "model")
        case = _case(check.name, verb, rest, 0 if about else check.seconds)
        ET.SubElement(case, "skipped" if check.status == "skipped" else "error", message=check.reason or check.status)
        yield case


def _case(check: str, verb: str, name: str, seconds: float) -> ET.Element:
    place = f"ostiary.{check}" if f"{check}.".startswith(f"{verb}.") else f"ostiary.{verb}.{check}"
    return ET.Element("testcase", classname=place, name=name, time=f"{seconds:.3f}")


def _tell(case: ET.Element, issues: list[Issue], lowest: Severity) -> None:
    """Failures, or why there are none."""
    least = SEVERITIES.index(lowest)
    grave = [one for one in issues if SEVERITIES.index(one.severity) >= least and one.excuse is None]
    light = [one for one in issues if one not in grave]
    if grave:
        # One each: some readers take no more of a case.
        text = "\n".join(map(_line, grave))
        ET.SubElement(case, "failure", type=grave[0].code, message=grave[0].message).text = text
    if light:
        ET.SubElement(case, "system-out").text = "\n".join(map(_line, light))


def _line(issue: Issue) -> str:
    excuse = f" (let pass: {issue.excuse})" if issue.excuse is not None else ""
    return f"{issue.code} {issue.severity} {issue.uri}: {issue.message}{excuse}"


def _time(created: str) -> str:
    """Without its zone, which the format has no place for; times are in UTC."""
    return created.removesuffix("Z").partition("+")[0]
