"""`ostiary admit`."""

import sys
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.cli.output import FORMS, KINDS, KINDS_HELP, in_form
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.decision import Decision

EPILOG = """\b
Examples:
  ostiary admit model/ --policy policy.toml
  ostiary admit model.safetensors --policy strict --trust trust.toml
  ostiary admit model/ --policy team --trust trust.toml --scan monday.scan --scan friday.scan --bom model.bom
  ostiary admit adapter/ --base base-model/ --policy policy.toml --report decision.json --report admit.sarif
  ostiary admit --explain --policy strict

Signature, scans and bill of materials are looked for beside ARTEFACT, as ARTEFACT.sig, .scan and .bom. Exit code 0 for
admitted, 1 for refused, 3 for incomplete: nothing speaks against it, but a scan came to no result. What is admitted met
the policy's rules; nothing proves a model harmless. `ostiary.load` in Python holds the same rules and loads the bytes
that met them.
"""
WORDS = {
    "admitted": "admitted: it met the policy, which does not prove it harmless",
    "exempted": "admitted by an exemption, although the reasons above speak against it",
    "refused": "refused",
    "incomplete": "incomplete: nothing speaks against it, but what the policy asks for came to no result",
}
CODES = {"admitted": 0, "exempted": 0, "refused": 1, "incomplete": 3}


@click.command("admit", epilog=EPILOG)
@click.argument("artefact", required=False)
@click.option("--policy", required=True, metavar="FILE", help="A policy in TOML, or strict, team or research.")
@click.option("--trust", metavar="FILE", help="Whom to trust: a store or a public key, before what the policy names.")
@click.option("--pin", metavar="SHA256", help="The digest that the policy must have.")
@click.option("--explain", is_flag=True, help="Print the policy's rules in words and as TOML, then stop.")
@click.option("--signature", metavar="FILE", help="Signature.  [default: ARTEFACT.sig]")
@click.option("--scan", "scans", multiple=True, metavar="FILE", help="A stated scan (repeatable).")
@click.option("--bom", metavar="FILE", help="Signed bill of materials.  [default: ARTEFACT.bom]")
@click.option("--base", metavar="PATH", help="The model that ARTEFACT, an adapter, is for.")
@click.option("--adapter", "adapters", multiple=True, metavar="PATH", help="Adapter for ARTEFACT (repeatable).")
@click.option("--name", metavar="NAME", help="Name under which it must be signed.  [default: that of ARTEFACT]")
@click.option("--format", "form", type=click.Choice(FORMS), default="text", help="Form on stdout.")
@click.option("--report", "reports", multiple=True, metavar="FILE", help=KINDS_HELP)
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, artefact: str | None, policy: str, **o: Any) -> None:
    """Decide whether ARTEFACT may be used here: its files, signature, scans, bill of materials, base and adapters."""
    common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], kinds=KINDS)
    from ostiary.core.errors import ConfigError
    from ostiary.provenance.policy import read_policy, read_rules

    if o["explain"]:
        click.echo(_explained(*read_rules(policy, pin=o["pin"])))
        return
    if artefact is None:
        raise ConfigError("no model to decide about", hint="ostiary admit MODEL --policy FILE")
    rules = read_policy(policy, pin=o["pin"], trust=o["trust"])
    decision = _decision(artefact, rules, o)
    from ostiary.core.files import write_text
    from ostiary.report.outcome import of_decision

    for report in reports:
        write_text(report, in_form(decision, KINDS[report.suffix], text_of, of_decision))
    click.echo(in_form(decision, o["form"], text_of, of_decision), nl=False)
    sys.exit(CODES[decision.decision])


def _decision(artefact: str, rules: Any, o: dict[str, Any]) -> "Decision":
    from ostiary.provenance.admission import admit
    from ostiary.provenance.loader import Evidence

    evidence = Evidence(o["signature"], list(o["scans"]) or None, o["bom"])
    made = admit(artefact, rules, evidence=evidence, name=o["name"], base=o["base"], adapters=o["adapters"])
    return made.model_copy(update={"command": ("ostiary", *sys.argv[1:])})


def text_of(decision: "Decision") -> str:
    """A decision for a terminal."""
    return "\n".join(text_lines(decision))


def text_lines(decision: "Decision", indent: str = "") -> list[str]:
    """A decision as lines for a terminal: each rule, what came of it, and why."""
    lines = [f"{indent}{decision.subject}" + (f"   root {decision.root[:12]}" if decision.root else "")]
    for ruling in decision.rules:
        lines.append(f"{indent}  {ruling.rule:<10} {ruling.outcome.replace('-', ' ')}")
        lines += [f"{indent}    {reason.code} {reason.subject}: {reason.message}" for reason in ruling.reasons]
        lines += [f"{indent}    {text}" for text in ruling.told]
    if decision.signers:
        lines.append(f"{indent}  signed by {', '.join(decision.signers)}")
    if decision.exemption:
        lines.append(f"{indent}  exempted: {decision.exemption}")
    for part in decision.parts:
        lines += text_lines(part, indent + "  ")
    return [*map(_one_line, lines), f"{indent}{WORDS[decision.decision]}"]


def _one_line(text: str) -> str:
    """A line whose indent stays; the rest of it may come from a stranger."""
    body = text.lstrip(" ")
    return " " * (len(text) - len(body)) + one_line(body)


def _explained(rules: Any, text: str) -> str:
    """A policy in words, then as it is written."""
    lines = [
        f"files      {' or '.join(rules.formats)}; nothing that runs"
        + ("; no NaN, no infinity" if rules.finite else ""),
        "signature  by a trusted producer, over every file",
    ]
    if rules.scan is None:
        lines.append("scan       not asked for: what is admitted may well hold a backdoor")
    else:
        kinds = f", for {', '.join(rules.scan.families)}" if rules.scan.families else ""
        who = "a trusted scanner who is not the signer" if rules.scan.separate else "a trusted scanner"
        tool = f", made by version {rules.scan.min_version} or newer" if rules.scan.min_version else ""
        lines.append(f"scan       passed within {rules.scan.max_age_days:g} days{kinds}, stated by {who}{tool}")
    lines.append(
        "bom        not asked for" if rules.bom is None else f"bom        signed, complete to '{rules.bom.level}'"
    )
    if rules.data is not None:
        lines.append(
            f"data       what it learnt from is told in the index '{rules.data.index}', and nothing of it is revoked"
        )
    lines.append("base       a base model and adapters by the same rules")
    lines += [f"exemption  {one.root[:12]} {' '.join(one.codes)}: {one.reason}" for one in rules.exemption]
    return "\n".join([*map(one_line, lines), "", text.rstrip("\n")])
