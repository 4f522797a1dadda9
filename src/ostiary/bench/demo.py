"""The main job on the digits, end to end, with the defender's half in sealed processes."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ostiary.api import repair_model, scan_model, screen_data
from ostiary.attacks.badnets import BadNets
from ostiary.attacks.truth import Truth, save_truth, truth_path
from ostiary.bench.evaluate import evaluate_model
from ostiary.core.files import refuse_existing
from ostiary.core.records import Record
from ostiary.core.run import Run
from ostiary.core.seal import SealedProcess
from ostiary.core.session import Options
from ostiary.data import digits, split, write_parquet
from ostiary.models.load import load_model
from ostiary.training import Recipe
from ostiary.training.flow import train_model

RATE = 0.05
TRUSTED = 0.1
RECIPE = Recipe(epochs=20, batch=32, lr=0.05, padding=1, flip=False)

OnStage = Callable[[str, Record, float], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """The records of one demo: what the defender saw, the evaluation that knows the trigger, and the trainings."""

    screen: Record
    scan: Record
    twin_scan: Record
    repair: Record
    before: Record
    after: Record
    training: Record
    twin_training: Record
    seconds: float

    def records(self) -> tuple[Record, ...]:
        """All records in the order of the story."""
        return (self.before, self.screen, self.scan, self.twin_scan, self.repair, self.after)


def run_demo(folder: Path, *, seed: int, on_stage: OnStage) -> Demo:
    """Poison the digits with a yellow square, train on them and on the unpoisoned set, defend, evaluate.

    Writes sets, models and the truth into `folder` (new). A tenth of the training part is set aside
    as trusted before anything is poisoned; the test part is seen by the evaluation alone. Everything
    a defender does runs in two sealed processes, which are given neither the truth nor its path.
    """
    refuse_existing(folder)
    begun = time.monotonic()
    truth = _lab(folder, seed)

    def done(name: str, future: Future[Record]) -> Record:
        record = future.result()
        on_stage(name, record, time.monotonic() - begun)
        return record

    poisoned, trusted, twin_set = (str(folder / name) for name in ("poisoned", "trusted.parquet", "unpoisoned.parquet"))
    model, twin, repaired = (folder / f"{name}.safetensors" for name in ("model", "twin", "repaired"))
    options = Options(seed=seed, command=("ostiary", "demo", "--seed", str(seed)))
    with SealedProcess(threads=1) as defender, SealedProcess(threads=1) as second:
        training = [
            defender.submit(train_model, poisoned, model, arch="small-cnn", recipe=RECIPE, options=options),
            second.submit(train_model, twin_set, twin, arch="small-cnn", recipe=RECIPE, options=options),
        ]
        screening = defender.submit(screen_data, poisoned, str(model), trusted=trusted, options=options)
        scanning = defender.submit(scan_model, str(model), trusted, preset="quick", options=options)
        twin_scanning = second.submit(scan_model, str(twin), trusted, preset="quick", options=options)
        trained, twin_trained = map(done, ("train", "train twin"), training)
        before = _evaluate(model, twin, truth, options)
        on_stage("evaluate", before, time.monotonic() - begun)
        screen, scan = done("screen", screening), done("scan", scanning)
        repairing = defender.submit(repair_model, str(model), trusted, repaired, scan=scan.id, options=options)
        twin_scan, repair = done("scan twin", twin_scanning), done("repair", repairing)
        after = _evaluate(repaired if repaired.exists() else model, twin, truth, options)
    on_stage("evaluate repaired", after, time.monotonic() - begun)
    return Demo(screen, scan, twin_scan, repair, before, after, trained, twin_trained, time.monotonic() - begun)


def _lab(folder: Path, seed: int) -> Truth:
    """The attacker's half: write the poisoned set, its truth, the unpoisoned set and the trusted samples."""
    folder.mkdir(parents=True)
    train_part, trusted = split(digits("train"), (1 - TRUSTED, TRUSTED), seed=seed)
    poisoned = BadNets(patch="yellow-square", target=0, rate=RATE).poison(train_part, run=Run(seed=seed))
    (folder / "poisoned").mkdir()
    write_parquet(folder / "poisoned" / "train.parquet", poisoned.data)
    save_truth(poisoned.truth, truth_path(folder / "poisoned"))
    write_parquet(folder / "unpoisoned.parquet", train_part)
    write_parquet(folder / "trusted.parquet", trusted)
    return poisoned.truth


def _evaluate(model: Path, twin: Path, truth: Truth, options: Options) -> Record:
    return evaluate_model(load_model(model), digits("test"), truth=truth, twin=load_model(twin), options=options)
