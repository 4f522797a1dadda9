"""Reading figures off the records of screens and scans, for the benchmarks that know the truth."""

from typing import Any

import numpy as np

from ostiary.core.records import ModelEvidence, Record
from ostiary.core.store import load_artifact, read_record
from ostiary.data import open_data


def flags(record: Record) -> dict[str, list[str]]:
    """For each method that ran, by its last name, the subjects it raised, notes left out."""
    return {
        result.method.rpartition(".")[2]: [f.subject for f in result.findings if f.level != "note"]
        for result in record.results
    }


def statuses(record: Record) -> dict[str, str]:
    """For each method, by its last name, how it ended where that is not well."""
    return {r.method.rpartition(".")[2]: f"{r.status}: {r.reason}" for r in record.results if r.status != "ok"}


def screen_rates(record: Record, data: str, poisoned: set[str]) -> dict[str, Any]:
    """Verdict, and per method the classes raised, the share of the poison and of the others put forward, seconds."""
    # The bench is sealed: a sealed process imports this module too, so it may not be imported above.
    from ostiary.bench.detection import detection_rates

    ids = np.array(open_data(data).ids)
    bad = np.isin(ids, list(poisoned))
    _, folder = read_record(record.id)
    figures: dict[str, Any] = {"verdict": record.verdict}
    for result in record.results:
        name = result.method.rpartition(".")[2]
        if result.status != "ok":
            figures[f"{name}: status"] = f"{result.status}: {result.reason}"
            continue
        suspected = load_artifact(record, folder, f"{name}-suspected").astype(bool)
        found, others = detection_rates(suspected, bad)
        figures |= {
            f"{name}: classes": flags(record)[name],
            f"{name}: poison found": found,
            f"{name}: others flagged": others,
            f"{name}: s": result.seconds,
        }
    return figures


def target_row(record: Record, target: int) -> dict[str, Any]:
    """What Neural Cleanse measured on the class `target`, with its seconds."""
    for result in record.results:
        if isinstance(result.evidence, ModelEvidence):
            row = next(row for row in result.evidence.per_class if row.label == target)
            return {
                "mask (px)": row.measures.get("mask_l1"),
                "anomaly index": row.measures.get("anomaly_index"),
                "median over mask": row.measures.get("size_ratio"),
                "flips held-out images": row.rates.get("flip_held_out"),
                "scan (s)": result.seconds,
            }
    return {"status": "; ".join(statuses(record).values()) or "no evidence"}
