"""What a grid's store holds, as a record: its rows with their digests, and what the runs that made them spent.

    make bench-grid GRID=reference
    python -m benchmarks.grid_record reference --store build/bench/reference

Writes records/NAME.jsonl, which `ostiary bench import` takes into another store, and records/NAME.runs.json. Only
rows of the grid's present cells are written. Runs that an earlier record tells of stay in it: their rows may have
been imported into this store.
"""

import argparse
import json
import statistics
from pathlib import Path

from ostiary.bench import index
from ostiary.bench.runner import make_plan
from ostiary.bench.store import Store, record_text
from ostiary.core.files import write_text

HERE = Path(__file__).parent


def main() -> None:
    """Write both files anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of a grid in benchmarks/grids")
    parser.add_argument("--store", type=Path, required=True, help="where the grid was run")
    parser.add_argument("--records", type=Path, default=HERE / "records", help="folder of the records")
    args = parser.parse_args()
    plan, store = make_plan(HERE / "grids" / f"{args.name}.toml"), Store(args.store)
    wanted = {cell.key for cell in plan.cells}
    rows = [row for row in index.rows(store) if row["key"] in wanted]
    out = args.records / f"{args.name}.jsonl"
    write_text(out, "".join(f"{record_text(row)}\n" for row in rows), replace=True)
    own = {model.key for model in plan.models}
    models = [row for key, row in store.finished("models").items() if key in own]
    made = [row["seconds"] for row in models if not row["from_bank"]]
    path = out.with_suffix(".runs.json")
    earlier = json.loads(path.read_text())["runs"] if path.exists() else []
    spent = {
        "grid": args.name,
        "cells": len(wanted),
        "rows": len(rows),
        "command": f"make bench-grid GRID={args.name}",
        "models_trained": len(made),
        "seconds_a_model": round(statistics.median(made), 1) if made else None,
        "runs": earlier + [run for run in store.runs() if run not in earlier],
    }
    write_text(path, json.dumps(spent, indent=1) + "\n", replace=True)
    print(f"{out}: {len(rows)} of {len(wanted)} cells")


if __name__ == "__main__":
    main()
