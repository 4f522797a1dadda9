"""RESULTS.md from the records in benchmarks/records, and from nothing else.

    python -m benchmarks.results

Every table states its command, seeds, number of samples or repeats, seconds and machine; every rate has its Wilson
95 % interval.
"""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import targets

from ostiary.bench.columns import trusted
from ostiary.bench.entries import Board, Entry
from ostiary.bench.leaderboard import effectiveness, works
from ostiary.bench.page import leaderboard
from ostiary.bench.render import render_markdown
from ostiary.bench.store import Row, record_of
from ostiary.core.files import write_text
from ostiary.core.records import Rate

HERE = Path(__file__).parent
SHORT = ("glance", "models", "scans", "screens", "guards", "unfinished")
"""The sections of a leaderboard that stand here too."""
HEAD = """# Results

Written by `python -m benchmarks.results` from the records in `benchmarks/records/`; not edited by hand. A rate is
written with its Wilson 95 % interval and its n. Seconds are wall time. Every script tells with `--help` what it
measures and why; `OSTIARY_DATA` names the folder of the shared data sets and models, which are not part of the
project.
"""


def cell(value: Any) -> str:
    """A figure as a table shows it; a mapping with k and n is a rate."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return str(Rate.model_validate(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(map(cell, value)) or "none"
    return str(value).replace("|", "\\|")


def machine(row: dict[str, Any]) -> str:
    """The machine of a row in one line."""
    m = row["machine"]
    return f"{m['cpu']}, {m['threads']} threads, torch {m['torch']}, Python {m['python']}, {m['platform']}"


def section(document: dict[str, Any]) -> str:
    """One record as Markdown: its title, what it measures, and one table for each group of rows."""
    lines = [f"## {document['title']}", "", document["about"], ""]
    for name in dict.fromkeys(row["table"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["table"] == name]
        lines += [f"### {name}", "", *_table(rows), ""]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows with one column for each figure, and their commands and machines below."""
    figures = list(dict.fromkeys(key for row in rows for key in row["figures"]))
    commands = list(dict.fromkeys(row["command"] for row in rows))
    machines = list(dict.fromkeys(machine(row) for row in rows))
    head = ["", *figures, "seed", "n", "seconds", "date", "command", "machine"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [
            row["key"],
            *(cell(row["figures"][key]) if key in row["figures"] else "" for key in figures),
            cell(row["seeds"]),
            cell(row["n"]),
            cell(float(row["seconds"])),
            row["date"],
            f"C{commands.index(row['command']) + 1}",
            f"M{machines.index(machine(row)) + 1}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"- C{number}: `{text}`" for number, text in enumerate(commands, 1)]
    lines += [f"- M{number}: {text}" for number, text in enumerate(machines, 1)]
    return lines


def grid_section(rows: list[Row], spent: dict[str, Any], whole: str) -> str:
    """A grid in short: what its runs spent, every attack against every defence, what each repair solves."""
    page = leaderboard(rows)
    title = f"Grid {spent['grid']}: {spent['rows']} of {spent['cells']} cells"
    short = tuple(one for one in page.sections if one.slug in SHORT)
    about = (*page.notes, f"The whole leaderboard, by attack and by defence, is in benchmarks/{whole}.")
    lines = render_markdown(replace(page, title=title, facts=_spent(spent), notes=about, sections=short), level=2)
    # Links lead to sections that are in the whole leaderboard alone.
    text = re.sub(r"\[([^]]+)\]\(#[^)]*\)", r"\1", lines).rstrip()
    board = Board.of(rows)
    return "\n".join([text, "", *_together(board), *_solved(board), ""])


def _spent(spent: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Command, cells an hour, share outside arithmetic, seconds a model; what a killed run spent is not known."""
    runs = spent["runs"]
    if not runs:
        return (("command", spent["command"]),)
    wall, busy, own, cells = (sum(run[name] for run in runs) for name in ("wall", "busy", "arithmetic", "cells"))
    slots = ", ".join(sorted({str(run["slots"]) for run in runs}))
    pace = f"{cells} cells in {wall / 3600:.1f} h with {slots} jobs at once, {3600 * cells / wall:.0f} an hour"
    each = f"{spent['models_trained']} trained here, a median of {spent['seconds_a_model']} s on one thread"
    return (
        ("command", spent["command"]),
        (
            "time of the runs that were kept",
            f"{pace}; {100 * (1 - own / busy):.1f} % of the jobs' time outside model arithmetic",
        ),
        ("training", each),
    )


def _solved(board: Board) -> list[str]:
    """One line for each repair: which models with a working backdoor it solves, and which not."""
    lines = ["### What each repair solves", ""]
    every = [one for one in board.of_verb("repair") if one.defence is not None]
    several = len({(one.defence.trusted, one.defence.source) for one in every}) > 1
    for defence in dict.fromkeys(one.defence for one in every):
        judged = [(one, effectiveness(board, one)) for one in every if one.defence == defence]
        told = {True: [], False: []}
        for one, found in judged:
            if found is not None:
                told[found[1]].append(one)
        n = sum(map(len, told.values()))
        if not n:
            continue
        words = {key: ", ".join(_by_seed(some)) or "none" for key, some in told.items()}
        budget = f" ({trusted(defence).text} trusted a class)" if several else ""
        lines += [
            f"- **{defence.name}**{budget} solves {Rate(k=len(told[True]), n=n)}: {words[True]}. Not: {words[False]}."
        ]
    return lines


def _together(board: Board) -> list[str]:
    """What all scans of the grid find together, as in a run of them all, with what they accuse wrongly."""
    by_model: dict[str, list[Entry]] = {}
    for one in board.of_verb("scan"):
        by_model.setdefault(one.model_key, []).append(one)
    named = sorted({str(one.defence.name) for some in by_model.values() for one in some if one.defence})
    bad, good = [], []
    for some in by_model.values():
        if some[0].treatment.kind != "attack":
            good.append(any(one.measures.get("found", 0) > 0 for one in some))
        elif works(board, some[0]):
            bad.append((some[0], any(one.measures.get("target found", 0) > 0 for one in some)))
    if len(named) < 2 or not bad:
        return []
    missed = ", ".join(_by_seed([one for one, found in bad if not found])) or "none"
    found = Rate(k=sum(found for _, found in bad), n=len(bad))
    text = (
        f"{', '.join(named)}: one of them at least names the target in {found}; missed: {missed}. One of them at least "
        f"has a finding on {Rate(k=sum(good), n=len(good))} of the models that nobody attacked."
    )
    return ["### What the scans find together", "", text, ""]


def _by_seed(entries: list[Entry]) -> list[str]:
    """Treatments, each with its seeds."""
    seeds: dict[str, list[int]] = {}
    for one in entries:
        seeds.setdefault(str(one.treatment), []).append(one.seed)
    return [f"{name} (seed {', '.join(map(str, own))})" for name, own in seeds.items()]


def main() -> None:
    """Render all records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records", help="folder of the records")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "RESULTS.md", help="file to write")
    args = parser.parse_args()
    grids = sorted(args.records.glob("*.jsonl"))
    files = [file for file in sorted(args.records.glob("*.json")) if not file.name.endswith(".runs.json")]
    sections = []
    for file in grids:
        rows = [record_of(line) for line in file.read_text(encoding="utf-8").splitlines()]
        spent = json.loads(file.with_suffix(".runs.json").read_text(encoding="utf-8"))
        whole = args.out.with_name(f"{file.stem}.md")
        write_text(whole, render_markdown(leaderboard(rows)), replace=True)
        sections.append(grid_section(rows, spent, whole.name))
    sections += [section(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    text = "\n".join([HEAD, targets.section(args.records), *sections])
    write_text(args.out, text.rstrip() + "\n", replace=True)
    print(f"{args.out}: {len(grids)} grids, {len(files)} records")


if __name__ == "__main__":
    main()
