"""What a screening suspects, over all its methods, and files for what comes next."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ostiary.core.files import atomic
from ostiary.core.records import Record, SampleEvidence
from ostiary.core.store import load_artifact, read_record
from ostiary.data import Data, ImageSet, TextSet, write_parquet, write_texts

Kept = TypeVar("Kept", ImageSet, TextSet)

RANKING = "screen.fusion"
"""The method whose list counts alone, where it finished: single methods may take the honest part of a class."""
COLUMNS = ("id", "label", "score", "reasons", "nearest")


@dataclass(frozen=True, slots=True)
class Found:
    """What one method found: its code and name, its suspects and scores [n], and their nearest samples by id."""

    method: str
    reason: str
    suspected: np.ndarray
    scores: np.ndarray
    nearest: dict[str, str]


def found_by(record: Record) -> list[Found]:
    """What each method that finished found, the one whose list counts first."""
    folder, every = read_record(record.id)[1], []
    for result in record.results:
        if result.status != "ok" or not isinstance(result.evidence, SampleEvidence):
            continue  # what the time limit cut must not pass its unexamined classes as kept
        name = result.evidence.artifact
        suspected, scores = (load_artifact(record, folder, f"{name}-{part}") for part in ("suspected", "scores"))
        code = result.findings[0].code if result.findings else ""
        nearest = {one.id: one.nearest for one in result.evidence.suspects if one.nearest is not None}
        every.append(Found(result.method, f"{code} {name}".strip(), suspected.astype(bool), scores, nearest))
    return sorted(every, key=lambda found: found.method != RANKING)


def suspected_of(found: list[Found]) -> np.ndarray:
    """[n] bool: suspected by the fusion where it finished, else by any method."""
    if found[0].method == RANKING:
        return found[0].suspected
    return np.asarray(np.any([one.suspected for one in found], axis=0))


def export_suspects(record: Record, data: Data, path: Path) -> None:
    """Write every suspected sample as CSV, most suspicious first, with all that suspect it as reasons."""
    found = found_by(record)
    rows = np.flatnonzero(suspected_of(found))
    first = {int(row): next(one for one in found if one.suspected[row]) for row in rows}
    order = {one.method: place for place, one in enumerate(found)}
    ranked = sorted(first, key=lambda row: (order[first[row].method], -first[row].scores[row]))
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in ranked:
            sample, by = data.ids[row], [one for one in found if one.suspected[row]]
            nearest = next((one.nearest[sample] for one in by if sample in one.nearest), "")
            reasons = "; ".join(one.reason for one in by)
            writer.writerow([sample, int(data.labels[row]), f"{first[row].scores[row]:.6g}", reasons, nearest])


def kept_of(record: Record, data: Kept) -> Kept:
    """The samples that are not suspected."""
    return data.subset(np.flatnonzero(~suspected_of(found_by(record))).tolist())


def export_kept(record: Record, data: Data, path: Path) -> None:
    """Write the samples that are not suspected.

    Images go into that Parquet file, or as train.parquet into that new folder; texts into that file of JSON lines, or
    as train.jsonl into that new folder.
    """
    if isinstance(data, TextSet):
        with atomic(path) as temporary:
            lines = path.suffix == ".jsonl"
            if not lines:
                temporary.mkdir()
            write_texts(temporary if lines else temporary / "train.jsonl", kept_of(record, data))
        return
    if path.suffix == ".parquet":
        write_parquet(path, kept_of(record, data))
        return
    with atomic(path) as folder:
        folder.mkdir()
        write_parquet(folder / "train.parquet", kept_of(record, data))
