"""RESULTS.md from the records in benchmarks/records, and from nothing else.

    python -m benchmarks.results

Every table states its command, seeds, number of samples or repeats, seconds and machine; every rate has its Wilson
95 % interval.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ostiary.core.files import write_text
from ostiary.core.records import Rate

HERE = Path(__file__).parent
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


def main() -> None:
    """Render all records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records", help="folder of the records")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "RESULTS.md", help="file to write")
    args = parser.parse_args()
    files = sorted(args.records.glob("*.json"))
    sections = [section(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    text = "\n".join([HEAD, *sections])
    write_text(args.out, text.rstrip() + "\n", replace=True)
    print(f"{args.out}: {len(files)} records")


if __name__ == "__main__":
    main()
