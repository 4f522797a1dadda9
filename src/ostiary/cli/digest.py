"""`ostiary digest`."""

import json
from typing import Any

import click

from ostiary.cli import common
from ostiary.cli.reading import reading

EPILOG = """\b
Examples:
  ostiary digest model/
  ostiary digest model.safetensors --format json
  ostiary digest model/ --algorithm blake3

The root stands for names and contents together: with two files swapped it is another. The OMS root is that of
OpenSSF Model Signing, which does not bind names. Nothing is left out, hidden files neither; links are refused.
"""


@click.command("digest", epilog=EPILOG)
@click.argument("path")
@click.option("--algorithm", type=click.Choice(["sha256", "blake3"]), default="sha256", show_default=True)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, path: str, algorithm: Any, form: str, **o: Any) -> None:
    """Print what PATH is: a digest of each file and one root over all of them."""
    call = common.call_settings(ctx, **o)
    from ostiary.provenance.manifest import digest

    with reading(call, path) as on_bytes:
        manifest = digest(path, algorithm, on_bytes=on_bytes)
    if form == "json":
        found = {
            "root": manifest.root.hex(),
            "omsRoot": manifest.oms_root.hex(),
            "algorithm": manifest.algorithm,
            "files": [{"path": f.path, "size": f.size, "digest": f.digest.hex()} for f in manifest.files],
            "emptyFolders": list(manifest.empty_folders),
        }
        click.echo(json.dumps(found, indent=2))
        return
    for file in manifest.files:
        click.echo(f"{file.digest.hex()}  {file.size:>12}  {file.path}")
    for folder in manifest.empty_folders:
        click.echo(f"{'empty folder':<64}  {0:>12}  {folder}")
    click.echo(f"root      {manifest.root.hex()}")
    click.echo(f"oms root  {manifest.oms_root.hex()}")
