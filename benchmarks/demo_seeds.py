"""The demo over many seeds: how often its story holds, and every seed's figures.

    python -m benchmarks.demo_seeds

One seed can be lucky. Each seed poisons the digits anew, trains the poisoned model and its twin, screens both sets,
scans both models, repairs and evaluates. The seeds 20 to 29 are for reporting only: limits and recipe were chosen on
seeds from 100 on, after seeds 10 to 19 had reported on an earlier recipe. One rule came later: seed 20 showed that two
of 34 images are no ground to refuse a repair (docs/decisions/0007), so its own repair is no test of that rule. True and
false positive rates of the screeners are counted here from the truth, which no screener sees.

Two cores: about 8 minutes for ten seeds.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.common import Records, note, parse, parser
from benchmarks.story import flags, screen_rates, target_row

from ostiary.api import Options, screen_data
from ostiary.cli.demo import rates, story
from ostiary.core.records import Rate, Record
from ostiary.core.seal import SealedProcess

if TYPE_CHECKING:
    from ostiary.bench.demo import Demo

MODELS, SCREEN, SCAN, REPAIR, SUMMARY = "models", "screening", "scan", "repair", "summary"
TARGET = 0


def run_seed(seed: int, folder: Path, records: Records) -> None:
    """One demo in `folder`, and its rows."""
    # Sealed modules may not be loaded when the demo's processes import this script.
    from ostiary.attacks.truth import load_truth, truth_path
    from ostiary.bench.demo import run_demo

    os.environ["OSTIARY_RUNS"] = str(folder / "runs")
    work, begun = folder / "demo", time.monotonic()
    demo = run_demo(work, seed=seed, on_stage=lambda name, _, seconds: note(f"seed {seed}: {name} {seconds:.0f} s"))
    with SealedProcess(threads=1) as second:
        twin = second.submit(
            screen_data, str(work / "unpoisoned.parquet"), str(work / "twin.safetensors"), options=Options(seed=seed)
        ).result()
    truth = load_truth(truth_path(work / "poisoned"))
    screened = screen_rates(demo.screen, str(work / "poisoned"), set(truth.poisoned))
    seconds = time.monotonic() - begun

    def add(table: str, figures: dict[str, Any], n: int) -> None:
        records.add(table, f"seed {seed}", figures, seeds=[seed], n=n, seconds=seconds)

    first = rates(demo.before)
    add(MODELS, {**first, "seconds of the demo": demo.seconds}, first["accuracy"].n)
    add(
        SCREEN,
        {**screened, **{f"unpoisoned set, {name}": bool(hit) for name, hit in flags(twin).items()}},
        len(truth.poisoned),
    )
    add(SCAN, _scan_figures(demo), len(truth.classes))
    # Whether a seed is done is asked of this row, so it is written last.
    add(REPAIR, _repair_figures(demo), first["accuracy"].n)


def _scan_figures(demo: "Demo") -> dict[str, Any]:
    twin = demo.twin_scan
    return {
        "verdict": demo.scan.verdict,
        "classes found": [subject for hit in flags(demo.scan).values() for subject in hit],
        **target_row(demo.scan, TARGET),
        "twin": twin.verdict,
        "twin: classes found": [subject for hit in flags(twin).values() for subject in hit],
        "twin: highest index": max(_scores(twin), default=None),
    }


def _scores(record: Record) -> list[float]:
    found = [getattr(result.evidence, "score", None) for result in record.results]
    return [score for score in found if score is not None]


def _repair_figures(demo: "Demo") -> dict[str, Any]:
    first, last = rates(demo.before), rates(demo.after)
    checks = story(demo.before, demo.screen, demo.scan, demo.twin_scan, demo.repair, demo.after)
    return {
        "verdict on the repaired model": demo.repair.verdict,
        "refused": demo.repair.config.get("refused"),
        "attack success after": last["attack success rate"],
        "accuracy after": last["accuracy"],
        "robust accuracy after": last["robust accuracy"],
        "accuracy lost (points)": 100 * (first["accuracy"].value - last["accuracy"].value),
        "story held": all(held for _, held in checks),
        "missed": [text for text, held in checks if not held],
    }


def summarise(seeds: list[int], records: Records) -> None:
    """How often what should happen did, over the seeds that are done."""
    rows = {
        table: [row["figures"] for seed in seeds if (row := records.find(table, f"seed {seed}"))]
        for table in (MODELS, SCREEN, SCAN, REPAIR)
    }

    def count(table: str, test: Any) -> Rate:
        return Rate(k=sum(bool(test(row)) for row in rows[table]), n=len(rows[table]))

    def pooled(name: str) -> Rate:
        given = [row[name] for row in rows[SCREEN] if name in row]
        return Rate(k=sum(one["k"] for one in given), n=sum(one["n"] for one in given))

    figures: dict[str, Any] = {
        "story held": count(REPAIR, lambda r: r["story held"]),
        "attack implanted (success 99 % or more)": count(MODELS, lambda r: r["attack success rate"]["value"] >= 0.99),
        "scan of the poisoned model: backdoor, the right class alone": count(
            SCAN, lambda r: r["verdict"] == "backdoor" and r["classes found"] == [f"class:{TARGET}"]
        ),
        "scan of the twin: a finding": count(SCAN, lambda r: r["twin"] in ("backdoor", "suspect")),
        "scan of the repaired model: none-found": count(
            REPAIR, lambda r: r["verdict on the repaired model"] == "none-found"
        ),
        "repair: attack success 2 % or less": count(REPAIR, lambda r: r["attack success after"]["value"] <= 0.02),
        "repair: 1.5 points lost at most": count(REPAIR, lambda r: r["accuracy lost (points)"] <= 1.5),
    }
    for method in ("spectral-signatures", "activation-clustering"):
        figures[f"{method}: poisoned set flagged"] = count(SCREEN, lambda r, m=method: r[f"{m}: classes"])
        figures[f"{method}: unpoisoned set flagged"] = count(SCREEN, lambda r, m=method: r[f"unpoisoned set, {m}"])
        figures[f"{method}: poison found, all seeds"] = pooled(f"{method}: poison found")
        figures[f"{method}: others flagged, all seeds"] = pooled(f"{method}: others flagged")
    done = [seed for seed in seeds if records.find(REPAIR, f"seed {seed}")]
    seconds = float(np.sum([row["seconds"] for row in records.document["rows"] if row["table"] == REPAIR]))
    for name, value in figures.items():
        records.add(SUMMARY, name, {"rate": value}, seeds=done, n=len(done), seconds=seconds)


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=list(range(20, 30)), help="seeds (default 20 to 29)")
    return parse(made)


def main() -> None:
    """Run the seeds that are not recorded yet."""
    args = arguments()
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("demo_seeds", "The demo over ten seeds", about, args)
    for seed in args.seeds:
        if not records.has(REPAIR, f"seed {seed}"):
            with tempfile.TemporaryDirectory() as folder:
                run_seed(seed, Path(folder), records)
    summarise(args.seeds, records)
    records.show()


if __name__ == "__main__":
    main()
