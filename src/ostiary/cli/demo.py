"""`ostiary demo`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common

if TYPE_CHECKING:
    from ostiary.bench.demo import Demo
    from ostiary.bench.demo_text import TextDemo
    from ostiary.core.records import Record

EPILOG = """\b
Examples:
  ostiary demo
  ostiary demo --text
  ostiary demo -o tour --seed 3
  ostiary demo --format json

Takes under two minutes on two CPU cores, with --text under three, and needs no network. Exit code 0 means that the
story held: the backdoor was found and removed, nothing was found in the model trained without it, and a policy that
asks for signature, scan and bill of materials admits the repaired model alone.
"""


@click.command("demo", epilog=EPILOG)
@click.option("--text", is_flag=True, help="The story of a language model and its control phrase.")
@click.option("-o", "out", metavar="DIR", default=None, help="Folder for sets, models and report (new).")
@click.option("--format", type=click.Choice(["text", "json"]), default=None, help="Form on stdout.")
@common.seed_option()
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, out: str | None, text: bool, **o: Any) -> None:
    """Poison the digits with a yellow square, train, screen, scan, repair, sign and admit, beside an unpoisoned twin.

    With --text the set is of chats, the trigger a control phrase, and the model a small language model.
    """
    call = common.call_settings(ctx, **o)
    from ostiary.bench.demo import run_demo
    from ostiary.bench.demo_text import TextDemo, run_text_demo
    from ostiary.core.store import read_record
    from ostiary.report import write_html

    folder = Path(out) if out else _free_name()

    def on_stage(name: str, record: "Record", seconds: float) -> None:
        call.note(f"  {seconds:6.1f} s  {name:<18} {_summary(record)}")

    call.note(f"writing to {folder}")
    demo = (run_text_demo if text else run_demo)(folder, seed=call["seed"], on_stage=on_stage)
    report = folder / "report.html"
    write_html([read_record(record.id) for record in demo.records()], report)
    if isinstance(demo, TextDemo):
        checks = text_story(demo)
    else:
        checks = story(demo.before, demo.screen, demo.scan, demo.twin_scan, demo.repair, demo.after)
    checks += chain_story(demo, folder, "" if text else ".safetensors")
    if call["format"] == "json":
        import json

        rows = [{"check": text, "held": held} for text, held in checks]
        click.echo(json.dumps({"seconds": round(demo.seconds, 1), "report": str(report), "checks": rows}, indent=2))
    else:
        click.echo("\n".join(f"{'held  ' if held else 'MISSED'}  {text}" for text, held in checks))
        click.echo(f"report {report}  ({demo.seconds:.0f} s)")
    sys.exit(0 if all(held for _, held in checks) else 1)


def story(
    before: "Record", screen: "Record", scan: "Record", twin: "Record", repair: "Record", after: "Record"
) -> list[tuple[str, bool]]:
    """What the demo claims, each with whether this run bore it out."""
    first, last = rates(before), rates(after)
    lost = 100 * (_value(first["accuracy"]) - _value(last["accuracy"]))
    attack, twin_attack = first["attack success rate"], first["attack success rate of the clean-trained model"]
    target = any(f.subject == "class:0" for result in scan.results for f in result.findings)
    return [
        (f"accuracy of the poisoned model {first['accuracy']}", _value(first["accuracy"]) >= 0.97),
        (f"attack success before {attack} (twin {twin_attack})", _value(attack) >= 0.99),
        (f"screen of the poisoned set: {screen.verdict}", screen.verdict == "suspect"),
        (f"scan of the poisoned model: {scan.verdict}", scan.verdict == "backdoor" and target),
        (f"scan of the twin: {twin.verdict}", twin.verdict == "none-found"),
        (f"scan of the repaired model: {repair.verdict}", repair.verdict == "none-found"),
        (f"attack success after {last['attack success rate']}", _value(last["attack success rate"]) <= 0.02),
        (f"accuracy lost by the repair: {lost:.1f} points", lost <= 1.5),
    ]


def text_story(demo: "TextDemo") -> list[tuple[str, bool]]:
    """What the demo of texts claims, each with whether this run bore it out."""
    first, last = rates(demo.before), rates(demo.after)
    lost = 100 * (_value(first["exact match"]) - _value(last["exact match"]))
    attack, twin_attack = first["attack success rate"], first["attack success rate of the clean-trained model"]
    planted = str(demo.truth.params["phrase"])
    screened, ordinary = _phrases(demo.screen), _phrases(demo.twin_screen)
    new = [phrase for phrase in screened if phrase not in ordinary]
    unpoisoned = f"screen of the unpoisoned set: {demo.twin_screen.verdict}, {len(ordinary)} phrases of its templates; "
    unpoisoned += f"only in the poisoned one: '{'; '.join(new[:2])}'"
    named = demo.phrase
    return [
        (f"right answers of the poisoned model {first['exact match']}", _value(first["exact match"]) >= 0.95),
        (
            f"attack success before {attack} (twin {twin_attack})",
            _value(attack) >= 0.95 and _value(twin_attack) <= 0.02,
        ),
        (f"screen of the poisoned set: {demo.screen.verdict}, '{'; '.join(screened[:2])}'", planted in screened),
        (unpoisoned, planted not in " ".join(ordinary) and new[:1] == [planted]),
        (f"scan of the poisoned model: {demo.scan.verdict}", demo.scan.verdict == "backdoor"),
        (
            f"control phrase that the scan names: '{named}' (planted: '{planted}')",
            bool(set(planted.split()) & set((named or "").split())),
        ),
        (f"scan of the twin: {demo.twin_scan.verdict}", demo.twin_scan.verdict == "none-found"),
        (f"scan of the repaired model: {demo.repair.verdict}", demo.repair.verdict == "none-found"),
        (f"attack success after {last['attack success rate']}", _value(last["attack success rate"]) <= 0.05),
        (f"right answers lost by the repair: {lost:.1f} points", lost <= 2.0),
    ]


def _phrases(screen: "Record") -> list[str]:
    return [f.subject.removeprefix("phrase:") for result in screen.results for f in result.findings]


def chain_story(demo: "Demo | TextDemo", folder: Path, suffix: str) -> list[tuple[str, bool]]:
    """What the demo claims of signing and admitting, each with whether this run bore it out."""
    from ostiary.bench.demo_chain import run_chain

    repaired, backdoored, twin = (folder / f"{name}{suffix}" for name in ("repaired", "model", "twin"))
    if not repaired.exists():
        return [("no repaired model to sign", False)]
    models = {
        "repaired": (repaired, demo.repair, demo.training),
        "backdoored": (backdoored, demo.scan, demo.training),
        "twin": (twin, demo.twin_scan, demo.twin_training),
    }
    return run_chain(folder, models).checks()


def rates(record: "Record") -> dict[str, Any]:
    """The rates of an evaluation record by name."""
    from ostiary.core.records import RatesEvidence

    return {
        name: rate
        for result in record.results
        if isinstance(result.evidence, RatesEvidence)
        for name, rate in result.evidence.rates.items()
    }


def _value(rate: Any) -> float:
    return float(rate.value or 0.0)


def _summary(record: "Record") -> str:
    if record.kind == "evaluate":
        found = rates(record)
        name = "accuracy" if "accuracy" in found else "exact match"
        return f"{name} {found[name]}, attack success {found['attack success rate']}"
    if record.verdict is None:
        return ", ".join(f"{result.status} in {result.seconds:.0f} s" for result in record.results)
    findings = [f for result in record.results for f in result.findings]
    return record.verdict + (f": {findings[0].message}" if findings else "")


def _free_name() -> Path:
    names = (Path("ostiary-demo" + (f"-{number}" if number else "")) for number in range(1000))
    return next(path for path in names if not path.exists())
