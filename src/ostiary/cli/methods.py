"""`ostiary methods`."""

import json
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary methods
  ostiary methods --kind scan
  ostiary methods neural-cleanse
"""

KINDS = ("scan", "screen", "repair", "guard", "harden", "attack", "perturb", "benign", "aggregate", "client-attack")


@click.command("methods", epilog=EPILOG)
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice([*KINDS, "arch"]), default=None, help="List only these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, name: str | None, kind: str | None, as_json: bool, **o: Any) -> None:
    """List methods with their conformance marks, or show the whole card of the method NAME."""
    common.call_settings(ctx, **o)
    if kind == "arch":
        from ostiary.models.zoo import ZOO

        click.echo(json.dumps(list(ZOO), indent=2) if as_json else "\n".join(ZOO))
        return
    cards = _cards(name, [kind] if kind else list(KINDS))
    if as_json:
        click.echo(json.dumps(cards, indent=2))
    elif name is not None:
        click.echo("\n".join(_page(card) for card in cards))
    else:
        click.echo("\n".join(f"{c['id']:<32} {','.join(c['marks']) or '-':<16} {c['summary']}" for c in cards))
        click.echo("\nmarks: mechanism = held in the tests, scale = a committed record at published scale")


def _cards(name: str | None, verbs: list[str]) -> list[dict[str, Any]]:
    import dataclasses

    from ostiary.core.catalog import method_class, methods
    from ostiary.core.errors import ConfigError
    from ostiary.core.execute import params_of

    found = []
    for verb in verbs:
        for method_id in methods(verb):
            if name is not None and name not in (method_id, method_id.rsplit(".", 1)[-1]):
                continue
            cls = method_class(verb, method_id)
            card = dataclasses.asdict(cls.card)
            found.append({**card, "marks": sorted(card["marks"]), "params": params_of(cls())})
    if not found:
        raise ConfigError(f"no method is called '{name}'", hint="`ostiary methods` lists all")
    return found


def _page(card: dict[str, Any]) -> str:
    nothing = (0, False, "any", "none")
    needs = ", ".join(f"{key} {value}" for key, value in card["needs"].items() if value not in nothing)
    lines = [
        f"{card['id']}: {card['summary']}",
        f"  paper       {card['paper']}",
        f"  needs       {needs or 'nothing'}",
        f"  cost        {card['cost']}",
        f"  marks       {', '.join(card['marks']) or 'none'}",
    ]
    lines += [f"  looks for   {', '.join(card['families'])}"] if card["families"] else []
    for limit in card["limits"]:
        bounds = [f"at least {limit['low']:g}"] if limit["low"] is not None else []
        bounds += [f"at most {limit['high']:g}"] if limit["high"] is not None else []
        lines.append(f"  limit       {limit['measure']} {' and '.join(bounds)}")
    lines += [f"  deviation   {text}" for text in card["deviations"]]
    lines += [f"  blind spot  {text}" for text in card["blind_spots"]]
    lines += [f"  parameter   {key} = {value}" for key, value in card["params"].items()]
    return "\n".join(lines)
