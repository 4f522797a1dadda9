"""What the benchmark scripts share: options, the shared data, timing, and records that survive a stop.

A record is `records/NAME.json`: a list of rows, each with its command, seeds, n, seconds, machine and figures. It is
rewritten through a temporary file after every finished row, so a stopped script goes on where it was.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ostiary.core.files import write_text
from ostiary.core.rate import Z95, Rate
from ostiary.core.session import environment

HERE = Path(__file__).parent
BEGUN = time.monotonic()


def note(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.monotonic() - BEGUN:7.1f} s  {text}", file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    """End the script with exit code 2: it cannot run as asked."""
    print(text, file=sys.stderr)
    sys.exit(2)


def parser(about: str | None, *, summary: bool = False) -> argparse.ArgumentParser:
    """An argument parser with the options that every script has, and --summary for those that sum up their rows."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--records", type=Path, default=HERE / "records", help="folder of the records")
    made.add_argument("--again", action="store_true", help="measure rows anew that are recorded already")
    made.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's own choice)")
    if summary:
        made.add_argument("--summary", action="store_true", help="only sum up the rows that there are")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; sets the number of threads."""
    args = made.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return args


def data_root(*needed: str) -> Path:
    """`$OSTIARY_DATA`, once it is known to hold `needed`; else ends the script with exit code 2."""
    named = os.environ.get("OSTIARY_DATA")
    if not named:
        stop("this benchmark needs the shared data: set OSTIARY_DATA to the folder that holds " + ", ".join(needed))
    missing = [name for name in needed if not (Path(named) / name).exists()]
    if missing:
        stop(f"OSTIARY_DATA is set, but that folder lacks {', '.join(missing)}")
    return Path(named)


class Records:
    """The record of one script: `has` says what is done, `add` keeps a finished row at once."""

    def __init__(self, name: str, title: str, about: str, args: argparse.Namespace) -> None:
        self.path: Path = args.records / f"{name}.json"
        self._command = _command(name)
        self._keep_old = not args.again
        self._fresh: set[tuple[str, str]] = set()
        rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"] if self.path.exists() else []
        self.document: dict[str, Any] = {"name": name, "title": title, "about": about, "rows": rows}

    def has(self, table: str, key: str) -> bool:
        """Whether a row is finished; with --again only those of this very run count."""
        return (table, key) in self._fresh or (self._keep_old and self.find(table, key) is not None)

    def find(self, table: str, key: str) -> dict[str, Any] | None:
        """The row `key` of a table, None when there is none."""
        rows = self.document["rows"]
        return next((row for row in rows if (row["table"], row["key"]) == (table, key)), None)

    def add(
        self, table: str, key: str, figures: Mapping[str, Any], *, seeds: Sequence[int], n: int | str, seconds: float
    ) -> None:
        """Keep one row, in place of an older one of the same name. Rates are given as `Rate`."""
        where = environment(torch.device("cpu")).model_dump(mode="json")
        row = {
            "table": table,
            "key": key,
            "command": self._command,
            "seeds": list(seeds),
            "n": n,
            "seconds": round(seconds, 2),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": {**where, "cores": os.cpu_count()},
            "figures": {name: _plain(value) for name, value in figures.items()},
        }
        old = self.find(table, key)
        if old is None:
            self.document["rows"].append(row)
        else:
            self.document["rows"][self.document["rows"].index(old)] = row
        self._fresh.add((table, key))
        text = json.dumps(self.document, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(self.path, text + "\n", replace=True)
        note(f"{table}: {key}: done")

    def show(self) -> None:
        """The whole record as tables on stdout."""
        from benchmarks.results import section  # it knows the bench, which no sealed process may import

        print(section(self.document))


def _plain(value: Any) -> Any:
    if isinstance(value, Rate):
        return value.model_dump(mode="json")
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value


def _command(name: str) -> str:
    """The command as another machine would repeat it: folders by their last name, none of the bookkeeping options."""
    words, given = ["python", "-m", f"benchmarks.{name}"], iter(sys.argv[1:])
    for word in given:
        if word == "--records":
            next(given, None)
        elif word != "--again" and not word.startswith("--records="):
            words.append(Path(word).name if os.path.isabs(word) else word)
    return shlex.join(words)


def interleaved(blocks: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run every block once unrecorded, then all of them in turn `repeats` times; gives what each returned.

    In turn, so that whatever else happens on the machine falls on all of them alike.
    """
    for name, block in blocks.items():
        note(f"warm-up: {name}: {block():.4g}")
    found: dict[str, list[float]] = {name: [] for name in blocks}
    for repeat in range(repeats):
        for name, block in blocks.items():
            found[name].append(block())
        note(f"repeat {repeat + 1} of {repeats}")
    return found


def spread(values: Sequence[float], unit: str) -> dict[str, float]:
    """Median and range, as figures of a row."""
    return {unit: statistics.median(values), "lowest": min(values), "highest": max(values)}


def hits(predicted: Tensor, labels: Tensor) -> Rate:
    """The rate of right predictions."""
    return Rate(k=int((predicted == labels).sum()), n=len(labels))


def paired_difference(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """Mean difference of two hit vectors on the same samples, with its 95 % interval (normal), in points."""
    gap = first.double() - second.double()
    half = Z95 * float(gap.std()) / len(gap) ** 0.5
    mean = float(gap.mean())
    return 100 * mean, 100 * (mean - half), 100 * (mean + half)
