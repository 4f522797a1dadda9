"""`ostiary bench`: sweeps of attacks and defences."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ostiary.cli import common
from ostiary.core.errors import ConfigError
from ostiary.engines import ENGINES, make_engine

if TYPE_CHECKING:
    from ostiary.bench.runner import Plan, Runner
    from ostiary.bench.store import Row, Store

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """\b
Examples:
  ostiary bench plan benchmarks/grids/reference.toml
  ostiary bench run benchmarks/grids/reference.toml --store build/reference
  ostiary bench table --store build/reference --format html -o table.html

A grid file says which attacks are measured against which defences, on which data, networks, rates and seeds; see
docs/bench.md. Attacks serve to measure defences; no defence sees anything but a model, its trusted images and the
suspect data.
"""

PLAN_EPILOG = """\b
Examples:
  ostiary bench plan benchmarks/grids/reference.toml
  ostiary bench plan benchmarks/grids/reference.toml --store build/reference
  ostiary bench plan my.toml --cells

The estimate rests on what the store measured before, or on a training of a few seconds.
"""

RUN_EPILOG = """\b
Examples:
  ostiary bench run benchmarks/grids/reference.toml --store build/reference
  ostiary bench run benchmarks/grids/reference.toml --store build/reference --bank benchmarks/bank/reference
  ostiary bench run my.toml --store /shared/mine --engine ray --ray-address auto

Stopped in any way, it goes on with `ostiary bench resume`. Exit code 3 means that some cells failed; each is a row
with its reason.
"""

RESUME_EPILOG = """\b
Examples:
  ostiary bench resume benchmarks/grids/reference.toml --store build/reference
  ostiary bench resume benchmarks/grids/reference.toml --store build/reference --retry-failed
  ostiary bench resume my.toml --store build/mine --slots 1
"""


TABLE_EPILOG = """\b
Examples:
  ostiary bench table --store build/reference
  ostiary bench table --store build/reference --format html -o table.html
  ostiary bench table --store build/reference --attack wanet --defence fine-pruning
"""

EXPORT_EPILOG = """\b
Examples:
  ostiary bench export --store build/reference -o rows.parquet
  ostiary bench export --store build/reference -o rows.jsonl
  ostiary bench export benchmarks/grids/reference.toml --store build/reference --bank bank

Parquet is for other tools; .jsonl holds everything and can be imported into another store; a bank holds the models of
GRID in fp16 with their recipes and truths.
"""

IMPORT_EPILOG = """\b
Examples:
  ostiary bench import rows.jsonl --store build/other
  ostiary bench import results.csv --store build/reference
  ostiary bench import results.csv --store build/reference && ostiary bench table --store build/reference

A .csv has the layout of BackdoorBench's public results; its figures stand beside ours in tables, marked as theirs.
"""


@click.group("bench", epilog=EPILOG)
def command() -> None:
    """Measure defences against attacks in a grid that a crash cannot spoil."""


def store_option(required: bool = True) -> Callable[[F], F]:
    """Where results live."""
    return click.option("--store", metavar="DIR", required=required, help="Folder of the results.")


def engine_options() -> Callable[[F], F]:
    """Where jobs run."""
    return common.stack(
        click.option(
            "--engine", type=click.Choice(tuple(ENGINES)), default="local", help="Where jobs run.  [default: local]"
        ),
        click.option("--ray-address", metavar="ADDRESS", help="A Ray cluster: auto, HOST:PORT or ray://HOST:PORT."),
        click.option("--slots", type=click.IntRange(min=1), help="Jobs at once.  [default: one per core]"),
        click.option("--bank", metavar="DIR", help="Take models from this bank instead of training them."),
    )


@command.command("plan", epilog=PLAN_EPILOG)
@click.argument("grid")
@store_option(required=False)
@click.option("--cells", "each", is_flag=True, help="Print every cell.")
@click.option(
    "--slots", type=click.IntRange(min=1), default=2, show_default=True, help="Jobs at once, for the estimate."
)
@common.global_options()
@click.pass_context
def plan_command(ctx: click.Context, /, grid: str, **o: Any) -> None:
    """Print the cells of GRID and how long they will take."""
    call = common.call_settings(ctx, **o)
    from ostiary.bench.estimate import estimate
    from ostiary.bench.runner import make_plan
    from ostiary.bench.store import Store

    plan = make_plan(Path(grid))
    store = Store(Path(o["store"])) if o["store"] else None
    _print_plan(plan)
    if o["each"]:
        for cell in plan.cells:
            click.echo("  ".join((cell.key[:12], _cell_words(cell))))
    if store is None:
        call.note("trying the network for the estimate ...")
    found = estimate(plan, store)
    click.echo(
        f"to do: {found.open_models} models and {found.open_cells} cells, about {found.hours(o['slots']):.1f} h with "
        f"{o['slots']} slots ({found.measured} cells by their precedents in the store, the others a rough guess)"
    )


@command.command("run", epilog=RUN_EPILOG)
@click.argument("grid")
@store_option()
@engine_options()
@common.global_options()
@click.pass_context
def run_command(ctx: click.Context, /, grid: str, **o: Any) -> None:
    """Run what GRID asks for into a new or an unfinished store."""
    _run(ctx, grid, retry_failed=False, create=True, **o)


@command.command("resume", epilog=RESUME_EPILOG)
@click.argument("grid")
@store_option()
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed before.")
@engine_options()
@common.global_options()
@click.pass_context
def resume_command(ctx: click.Context, /, grid: str, retry_failed: bool, **o: Any) -> None:
    """Go on with a run that was stopped, or run failed cells again."""
    _run(ctx, grid, retry_failed=retry_failed, create=False, **o)


@command.command("table", epilog=TABLE_EPILOG)
@store_option()
@click.option("--format", "form", type=click.Choice(["text", "md", "html"]), default="text", help="Form of the table.")
@click.option("-o", "out", metavar="FILE", help="Write it here instead of stdout.")
@click.option("--attack", metavar="NAME", help="Only the page of this attack.")
@click.option("--defence", metavar="NAME", help="Only the page of this defence.")
@common.global_options()
@click.pass_context
def table_command(ctx: click.Context, /, **o: Any) -> None:
    """Print the leaderboard of a store: overview, one page per attack and one per defence."""
    common.call_settings(ctx, **o)
    common.check_outputs(o["out"])
    from ostiary.bench.index import rows
    from ostiary.bench.page import leaderboard, select
    from ostiary.bench.render import render_html, render_markdown, render_text
    from ostiary.bench.store import Store
    from ostiary.bench.transfer import their_rows
    from ostiary.core.files import write_text

    store = Store(Path(o["store"]))
    page = leaderboard(rows(store), theirs=their_rows(store))
    if o["attack"] or o["defence"] or o["form"] == "text":
        page = select(page, attack=o["attack"], defence=o["defence"])
    text = {"text": render_text, "md": render_markdown, "html": render_html}[o["form"]](page)
    if o["out"]:
        write_text(Path(o["out"]), text)
        click.echo(f"wrote {o['out']}")
    else:
        click.echo(text, nl=False)
    _tell_damaged(store)


@command.command("export", epilog=EXPORT_EPILOG)
@click.argument("grid", required=False)
@store_option()
@click.option("-o", "out", metavar="FILE", help="Rows as .parquet or .jsonl.")
@click.option("--bank", metavar="DIR", help="Models of GRID, as a bank.")
@common.global_options()
@click.pass_context
def export_command(ctx: click.Context, /, grid: str | None, **o: Any) -> None:
    """Write the rows of a store, or the models of GRID, for others."""
    common.call_settings(ctx, **o)
    common.check_outputs(o["out"], o["bank"])
    if not (o["out"] or o["bank"]):
        raise ConfigError("nothing to export", hint="-o FILE.parquet, -o FILE.jsonl or --bank DIR")
    if o["bank"] and not grid:
        raise ConfigError("--bank needs a grid", hint="ostiary bench export GRID.toml --store DIR --bank DIR")
    suffix = Path(o["out"] or "").suffix
    if o["out"] and suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"rows go to .parquet or .jsonl, not '{o['out']}'", hint="name such a file")
    from ostiary.bench.bank import export_bank
    from ostiary.bench.index import export_parquet, rows
    from ostiary.bench.runner import make_plan
    from ostiary.bench.store import Store
    from ostiary.bench.transfer import export_rows

    store = Store(Path(o["store"]))
    if o["out"]:
        found = rows(store)
        (export_parquet if suffix == ".parquet" else export_rows)(found, Path(o["out"]))
        click.echo(f"wrote {o['out']}  {len(found)} rows")
    if o["bank"]:
        count, size = export_bank(store, make_plan(Path(str(grid))).models, Path(o["bank"]))
        click.echo(f"wrote {o['bank']}  {count} models, {size / 2**20:.1f} MiB")
    _tell_damaged(store)


@command.command("import", epilog=IMPORT_EPILOG)
@click.argument("file")
@store_option()
@common.global_options()
@click.pass_context
def import_command(ctx: click.Context, /, file: str, **o: Any) -> None:
    """Take rows of another store, or published results of another tool, into a store."""
    common.call_settings(ctx, **o)
    from ostiary.bench.store import Store
    from ostiary.bench.transfer import import_file

    taken = import_file(Store(Path(o["store"]), create=True), Path(file))
    click.echo(f"{taken.new} rows taken, {taken.known} known before, {len(taken.damaged)} damaged")
    for text in taken.damaged:
        click.echo(f"damaged {text}", err=True)
    sys.exit(3 if taken.damaged else 0)


def _tell_damaged(store: "Store") -> None:
    for text in store.damaged:
        click.echo(f"damaged record {text}", err=True)


def _run(ctx: click.Context, grid: str, *, retry_failed: bool, create: bool, **o: Any) -> None:
    call = common.call_settings(ctx, **o)
    from ostiary.bench.runner import Runner, make_plan
    from ostiary.bench.store import Store

    if o["ray_address"] and o["engine"] != "ray":
        raise ConfigError("--ray-address needs --engine ray", hint="leave one of them out")
    plan = make_plan(Path(grid))
    store = Store(Path(o["store"]), create=create)
    begun = time.monotonic()

    def told(row: "Row", done: int, total: int) -> None:
        call.note(f"{time.monotonic() - begun:8.1f} s  {done}/{total}  {_row_words(row)}")

    runner = Runner(plan, store, bank=Path(o["bank"]) if o["bank"] else None, on_row=told)
    _end_on_sigterm()
    with make_engine(o["engine"], slots=o["slots"], address=o["ray_address"]) as engine:
        runner.run(engine, retry_failed=retry_failed)
    _tell_damaged(store)
    sys.exit(_summary(runner, store))


def _end_on_sigterm() -> None:
    """What a batch system sends before it kills: end as on Ctrl-C, so that no job is left behind."""

    def end(*_: object) -> None:
        # Not by way of SIGINT, which is ignored in a shell's background jobs.
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


def _summary(runner: "Runner", store: "Store") -> int:
    finished, failed = store.finished(), store.failures()
    lost = [failed[cell.key] for cell in runner.plan.cells if cell.key in failed and cell.key not in finished]
    tally = runner.tally
    click.echo(f"{len(runner.plan.cells) - len(lost)} of {len(runner.plan.cells)} cells measured, {len(lost)} failed")
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in lost:
        reasons.setdefault((row["status"], row["reason"]), []).append(row)
    for (status, reason), rows in reasons.items():
        click.echo(f"  {len(rows)} {status}: {reason}")
        for row in rows:
            click.echo(f"    {_name(row)}")
    if tally.cells:
        outside = 1 - tally.arithmetic / tally.busy if tally.busy else 0.0
        click.echo(
            f"{tally.cells} cells and their models in {tally.wall:.0f} s with {tally.slots} slots: "
            f"{3600 * tally.cells / tally.wall:.0f} cells an hour, {outside:.0%} of the time outside model arithmetic"
        )
    return 3 if lost else 0


def _print_plan(plan: "Plan") -> None:
    grid = plan.grid
    kinds = {kind: sum(model.kind == kind for model in plan.models) for kind in ("attack", "twin", "benign")}
    click.echo(f"grid {grid.name}, role {grid.role}: {len(plan.models)} models, {len(plan.cells)} cells")
    click.echo(f"  models    {kinds['attack']} under attack, {kinds['twin']} twins, {kinds['benign']} hard-benign")
    for name, attack in grid.attack.items():
        rates = ", ".join(f"{100 * rate:g} %" for rate in attack.rates or grid.rates)
        click.echo(f"  attack    {name:<22} {attack.id:<28} at {rates}")
    for name, kind in grid.benign.items():
        click.echo(f"  benign    {name:<22} {kind.id}")
    for name, defence in grid.defence.items():
        count = sum(cell.name == name and cell.defence is not None for cell in plan.cells)
        click.echo(f"  defence   {name:<22} {defence.id:<28} {count} cells")
    click.echo(f"  trusted   {', '.join(map(str, grid.trusted))} images per class, from: {', '.join(grid.sources)}")


def _cell_words(cell: Any) -> str:
    model = cell.model
    rate = "" if model.rate is None else f" {100 * model.rate:g} %"
    budget = f" trusted {cell.budget} {cell.source}" if cell.defence else ""
    return f"{model.data.name} {model.model} seed {model.seed} {model.name}{rate} x {cell.name}{budget}"


def _row_words(row: "Row") -> str:
    return f"{_name(row)}: {row['status']}"


def _name(row: "Row") -> str:
    rate = "" if row["rate"] is None else f" {100 * row['rate']:g} %"
    name = row["attack"] if row["kind"] != "twin" else "twin"
    return f"{name}{rate} seed {row['seed']} x {row['defence']}"
