"""Screening a set in shards: an engine's jobs compute the features, then one process judges class by class.

No process ever holds the images of the whole set, nor its features: those lie in mapped files, and
the screeners take one class at a time. What they need of every sample stays in memory: label, id,
scores, and thumbnails of 8 x 8.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostiary.core.cache import NOWHERE
from ostiary.core.errors import ConfigError, DataError, FormatError, JobFailed, ModelError, OutOfTime
from ostiary.core.files import atomic
from ostiary.core.records import Record
from ostiary.core.run import Run
from ostiary.core.seal import TRUTH_SUFFIX
from ostiary.core.session import Options
from ostiary.core.store import runs_root
from ostiary.data import ImageSet, Span, open_data, require_classes
from ostiary.engines import Done, Engine, Job, schedule
from ostiary.inputs import check_fit
from ostiary.models.load import load_model
from ostiary.models.user import is_user_arch
from ostiary.screen.features import NAMES, SetFeatures, compute_features, keep_features

UNUSABLE = "unusable"
ARRAYS = (*NAMES, "digests")


def screen_shards(
    data: str | Path,
    model: str | Path,
    engine: Engine,
    *,
    shards: int,
    trusted: ImageSet | None = None,
    methods: Sequence[str] = (),
    preset: str = "standard",
    params: Mapping[str, Mapping[str, Any]] | None = None,
    how: Mapping[str, Any] | None = None,
    work: str | Path | None = None,
    options: Options | None = None,
) -> Record:
    """Screen a set as `screen_data` does, its samples' features computed in `shards` jobs of `engine`.

    `data` and `model` are what `open_data` and `load_model` take (`how` are the latter's options);
    the machines of the engine must find them under these names, and `work` (default: where records
    are kept), in which the features lie until the end. Parquet files and folders of images are read
    in parts; what is one array on the disk is read whole by every job. Results are those of the whole
    set, up to the rounding that comes with other batches.

    Raises as `screen_data` does; JobFailed when a shard crashed, OutOfTime when the time limit passed
    before all features were there: then there is no record.
    """
    from ostiary.api import screen_data

    options, how = options or Options(), _absolute(how or {})
    run = options.run()
    opened, subject = open_data(data), load_model(model, device=options.device, **how)
    require_classes(opened)
    check_fit(subject, opened)
    if not 1 <= shards <= len(opened):
        raise ConfigError(f"{shards} shards of {len(opened)} samples", hint="give 1 to as many as there are samples")
    where = Path(work) if work is not None else runs_root()
    where.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".shards-", dir=where.resolve()))
    try:
        jobs = _jobs(opened, shards, folder, {"data": _place(data), "model": _place(model), "how": how}, run)
        _run(engine, jobs, run)
        *arrays, digests = _joined(jobs, len(opened), folder)
        opened.sample_digests = digests  # else the whole set would be read for its digest
        keep_features(subject, opened, SetFeatures(*arrays))
        if run.deadline is not None:
            options = replace(options, time_limit=max(0.0, run.deadline - time.monotonic()))
        return screen_data(
            opened, subject, trusted=trusted, methods=methods, preset=preset, params=params, options=options
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_shard(
    *, data: str, model: str, how: dict[str, Any], start: int, stop: int, out: str, device: str
) -> dict[str, str | None]:
    """What a job does: features, thumbnails and digests of the rows `start` to `stop`, into the new folder `out`.

    Gives what makes the input unusable, so that the caller can say so as for any other input.
    """
    if Path(out).exists():
        return {}  # an engine may run a job again whose end it did not see
    try:
        part = Span(open_data(data), start, stop)
        whole = load_model(model, device=device, **how)
        found = compute_features(whole, part, Run(device=torch.device(device)), NOWHERE)
        arrays = {name: getattr(found, name) for name in NAMES} | {"digests": part.sample_digests}
    except (FormatError, DataError, ModelError) as error:
        return {UNUSABLE: str(error), "hint": error.hint}
    with atomic(Path(out)) as folder:
        folder.mkdir()
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return {}


def _jobs(data: ImageSet, shards: int, folder: Path, what: dict[str, Any], run: Run) -> list[Job]:
    cuts = [len(data) * number // shards for number in range(shards + 1)]
    left = None if run.deadline is None else max(0.0, run.deadline - time.monotonic())
    truth = what["data"] + TRUTH_SUFFIX
    return [
        Job(
            key=f"shard {number + 1} of {shards}",
            call="ostiary.screen.shards:measure_shard",
            args={**what, "start": start, "stop": stop, "out": str(folder / f"{number}"), "device": str(run.device)},
            sealed=True,
            hidden=(truth,) if Path(truth).exists() else (),
            timeout=left,
        )
        for number, (start, stop) in enumerate(pairwise(cuts))
    ]


def _run(engine: Engine, jobs: list[Job], run: Run) -> None:
    rows = {job.key: job.args["stop"] - job.args["start"] for job in jobs}
    total, done = sum(rows.values()), 0
    for ended in schedule(engine, jobs):
        _check(ended)
        done += rows[ended.key]
        run.step(done, total, "features")


def _check(ended: Done) -> None:
    if ended.status == "timeout":
        raise OutOfTime(f"the time limit passed during {ended.key}", hint="raise --time-limit, or use more machines")
    if ended.status != "ok":
        raise JobFailed(f"{ended.key} {ended.status}: {ended.reason}", hint="more shards take less memory each")
    if UNUSABLE in ended.value:
        raise DataError(f"{ended.key}: {ended.value[UNUSABLE]}", hint=ended.value["hint"])


def _joined(jobs: list[Job], n: int, folder: Path) -> list[np.ndarray]:
    """The arrays of all shards as one file each, mapped; a shard's own files go as soon as they are copied."""
    wholes: list[np.ndarray] = []
    for name in ARRAYS:
        files = [Path(job.args["out"]) / f"{name}.npy" for job in jobs]
        blocks = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        dtype, shape = np.result_type(*blocks), (n, *blocks[0].shape[1:])
        whole = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for job, block, file in zip(jobs, blocks, files, strict=True):
            whole[job.args["start"] : job.args["stop"]] = block
            file.unlink()
        wholes.append(whole)
    return wholes


def _place(name: str | Path) -> str:
    """A path as another process finds it; built-in names stay as they are."""
    return str(Path(name).resolve()) if Path(name).exists() else str(name)


def _absolute(how: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `load_model`, a user's file of code named as another process finds it."""
    arch = how.get("arch")
    if arch is None or not is_user_arch(arch):
        return dict(how)
    file, _, factory = arch.rpartition(":")
    return {**how, "arch": f"{_place(file)}:{factory}"}
