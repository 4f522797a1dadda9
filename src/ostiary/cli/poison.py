"""`ostiary poison`."""

from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary poison digits --attack badnets -o poisoned
  ostiary poison cifar10/train.parquet --attack badnets --set badnets.rate=0.05 --set badnets.target=0 -o poisoned
  ostiary poison images/ --attack blended --set blended.image=logo.png --seed 3 -o poisoned

Writes DIR/train.parquet, which any trainer can read, and apart from it DIR.truth with the trigger and the poisoned
ids, which only `ostiary evaluate` may see. This is for testing one's own pipeline and defences.
"""


@click.command("poison", epilog=EPILOG)
@click.argument("data")
@click.option("--attack", metavar="ID", required=True, help="The attack (`ostiary methods --kind attack`).")
@click.option("--set", "sets", multiple=True, metavar="ID.KEY=VALUE", help="Set a parameter of the attack.")
@click.option("-o", "out", metavar="DIR", required=True, help="Where the poisoned set goes.")
@common.seed_option()
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, attack: str, out: str, **o: Any) -> None:
    """Write a poisoned copy of DATA, and apart from it the sealed truth."""
    call = common.call_settings(ctx, **o)
    from ostiary.attacks.truth import save_truth, truth_path
    from ostiary.core.catalog import make, resolve
    from ostiary.core.errors import ConfigError
    from ostiary.core.files import atomic
    from ostiary.core.plan import parse_sets
    from ostiary.data import open_data, write_parquet

    folder = Path(out)
    common.check_outputs(out, str(truth_path(folder)))
    chosen = resolve("attack", attack)
    params = {resolve("attack", name): values for name, values in parse_sets(o["sets"]).items()}
    if other := [name for name in params if name != chosen]:
        raise ConfigError(f"--set names '{other[0]}', but the attack is '{chosen}'")
    built = make("attack", chosen, params.get(chosen, {}))
    with call.options() as options:
        poisoned = built.poison(open_data(data), run=options.run())
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_parquet(temporary / "train.parquet", poisoned.data)
        save_truth(poisoned.truth, truth_path(folder))
    truth = poisoned.truth
    covers = f", {len(truth.covers)} covers" if truth.covers else ""
    click.echo(
        f"wrote {folder / 'train.parquet'}  {len(poisoned.data)} samples, {len(truth.poisoned)} poisoned{covers}"
    )
    click.echo(f"wrote {truth_path(folder)}  the sealed truth: keep it from whatever runs a defence")
