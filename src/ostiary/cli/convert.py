"""`ostiary convert`."""

from pathlib import Path
from typing import Any

import click

from ostiary.cli import common
from ostiary.core.text import one_line

EPILOG = """\b
Examples:
  ostiary convert model.pt -o model.safetensors
  ostiary convert checkpoint.ckpt -o weights.safetensors
  ostiary convert pytorch_model.bin -o model.safetensors -q && ostiary sign model.safetensors --key k.key -o model.sig

FILE is inspected first and nothing in it is run: every opcode of a pickle, every member of an archive, every checksum.
What is not of a kind that weights consist of is refused with all its reasons, and the exit code is 1; `ostiary explain
CODE` says what a reason means. The weights are then read in a child process without network, with limits, and come out
bit by bit the same; the header of NEW says the SHA-256 of FILE. Optimiser state and other values are left out.
"""


@click.command("convert", epilog=EPILOG)
@click.argument("file")
@click.option("-o", "out", metavar="NEW", required=True, help="Where the weights go, as safetensors.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, file: str, out: str, **o: Any) -> None:
    """Inspect FILE, a torch checkpoint, and write its weights as safetensors."""
    call = common.call_settings(ctx, **o)
    common.check_outputs(out)
    from ostiary.provenance.convert import convert
    from ostiary.provenance.refusal import Refused

    try:
        made = convert(Path(file), Path(out))
    except Refused as refused:
        for reason in refused.reasons[1:]:
            click.echo(one_line(str(reason)), err=True)
        raise
    if made.under:
        call.note(f"the weights lay under {' / '.join(made.under)}; what lay beside them is left out")
    click.echo(f"wrote {out}: {made.tensors} tensors, {made.bytes} bytes")
