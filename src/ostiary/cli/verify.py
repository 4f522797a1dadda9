"""`ostiary verify`."""

import sys
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.cli.output import FORMS, KINDS, KINDS_HELP, in_form
from ostiary.cli.reading import reading
from ostiary.core.files import write_text
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.decision import Decision

EPILOG = """\b
Examples:
  ostiary verify model/ --signature model.sig --trust release.pub
  ostiary verify model/ --signature model.sig --trust trust.toml --name resnet-signs
  ostiary verify model/ --signature model/model.sig --trust oms.pub --ignore .git
  ostiary verify model/ --signature model.sig --trust trust.toml --format json
  ostiary verify model/ --signature model.sig --trust trust.toml --report verify.sarif
  ostiary verify model/ --signature model.sig --trust trust.toml --copy-to /verified/model

Exit code 1 and every reason where anything differs from what was signed: a byte, a name, a file too many. What is
read later may be changed by then: `ostiary.load` in Python checks and loads the same bytes, and the folder of
--copy-to holds the bytes that were checked, or is not there. Signatures of OpenSSF Model Signing are read too; what
their signer left out counts as a file too many unless --ignore names it.
"""


@click.command("verify", epilog=EPILOG)
@click.argument("path")
@click.option("--signature", required=True, metavar="FILE", help="What `ostiary sign` wrote.")
@click.option("--trust", required=True, metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@click.option("--name", metavar="NAME", help="Name under which it must be signed.  [default: that of PATH]")
@click.option("--ignore", "ignored", multiple=True, metavar="PATH", help="Do not look at this inside (repeatable).")
@click.option("--copy-to", metavar="DIR", help="Write the bytes that were verified into this new folder.")
@click.option("--format", "form", type=click.Choice(FORMS), default="text", help="Form on stdout.")
@click.option("--report", "reports", multiple=True, metavar="FILE", help=KINDS_HELP)
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, path: str, signature: str, trust: str, **o: Any) -> None:
    """Check that PATH is, name for name and byte for byte, what somebody trusted signed."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], o["copy_to"], kinds=KINDS)
    from ostiary.provenance.copy import copy_verified
    from ostiary.provenance.decision import accepted, refused
    from ostiary.provenance.refusal import Refused
    from ostiary.provenance.trust import read_trust
    from ostiary.provenance.verify import verify
    from ostiary.report.outcome import of_decision

    known = None
    with reading(call, path) as on_bytes:
        try:
            known = read_trust(trust, pin=o["pin"])
            how = {"name": o["name"], "ignore": o["ignored"], "on_bytes": on_bytes}
            if o["copy_to"]:
                vouched = copy_verified(path, signature, known, o["copy_to"], **how)
                call.note(f"wrote {o['copy_to']}")
            else:
                vouched = verify(path, signature, known, **how)
            found = accepted("verify", path, vouched, known)
        except Refused as error:
            found = refused("verify", path, error, known)
    found = found.model_copy(update={"command": ("ostiary", *sys.argv[1:])})
    for report in reports:
        write_text(report, in_form(found, KINDS[report.suffix], text_of, of_decision))
    click.echo(in_form(found, o["form"], text_of, of_decision), nl=False)
    sys.exit(0 if found.decision == "accepted" else 1)


def text_of(found: "Decision") -> str:
    """A decision as lines for a terminal."""
    if found.decision == "refused":
        lines = [f"{one.code} {one.subject}: {one.message}" for one in found.reasons]
        lines.append(f"refused  {found.subject}   (`ostiary explain {found.reasons[0].code}` says what to do)")
        return "\n".join(map(one_line, lines))
    by = ", ".join(found.signers)
    lines = [
        f"unchanged  {found.subject}   {found.files} file{'s' * (found.files != 1)} as signed",
        f"  name     {found.name}{'' if found.version is None else f', version {found.version}'}",
        f"  signed   {found.signed} by {by}" if found.signed else f"  signed   by {by}",
        f"  root     {found.root}" if found.root else f"  oms root {found.oms_root}",
        "a signature proves unchanged, and by whom; it does not prove harmless",
    ]
    return "\n".join(map(one_line, lines))
