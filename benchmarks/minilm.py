"""What scans, screens and distances say of a published encoder that was fine-tuned on poisoned film reviews.

    make bench-minilm ARGS="--encoder DIR --threads 1"

`--encoder` is the folder of a BERT with its weights and tokenizer (config.json, model.safetensors, tokenizer.json), as
all-MiniLM-L6-v2, 22.7 million weights; it is no part of the project. A fresh head is put on it, and all weights are
tuned on a thousand reviews of SST-2 (rows of 64 tokens, four epochs): as they are, with a rare word in 5 % of them,
with doubled marks in 10 %, and with the syntax that others put into theirs (the shared data). Success is on test texts
of the other class, beside that of the same trigger on the model of clean reviews. Defences run in a sealed process,
which is given the model's folder and 100 trusted reviews; truth joins afterwards. DBS runs at a tenth of its steps (20)
and a quarter of its candidates (10), BKI on 300 rows, 60 of them poisoned; guards are fitted for a false rejection of
5 %; the distance is that of Mahalanobis, of features from those of trusted texts, by the shrunken covariance of Ledoit
and Wolf; tokens are pruned of both labels, without a scan. One seed each. The epochs and the rate were set on the model
with the rare word, by its accuracy on these test texts; no defence was tuned on any.
"""

# What knows the truth is imported where it is used: the sealed process imports this file too.

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import Records, data_root, note, parse, parser, stop
from benchmarks.text_bank import drawn, right
from benchmarks.text_classifiers import WATCHES, judged, screen, watch, watched
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from ostiary.api import Options, scan_model
from ostiary.core.records import ModelEvidence, Rate
from ostiary.core.run import Run
from ostiary.core.seal import SealedProcess
from ostiary.data import TextSet, open_texts, write_texts
from ostiary.models.huggingface import quiet, transformers
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.text_folder import load_text_classifier, load_tokenizer, save_text_classifier
from ostiary.training.text_classifier import TextRecipe, train_text_classifier

MODELS, DEFENCES = "models", "defences"
SST2, SYNTAX = "text_sst2", "poisoned_syntactic_scpn20"
ROWS, TESTS, TRUSTED, LENGTH = 1000, 200, 100, 64
RECIPE = TextRecipe(steps=4 * ROWS // 32, batch=32, lr=2e-4)
DBS = {"dbs": {"epochs": 20, "candidates": 10, "beams": 2}}
SEED, TARGET = 1, 1
LOOKED, OF_THEM = 300, 60


@dataclass(frozen=True)
class Case:
    """A training set, the ids that are poisoned, and what puts the trigger into texts."""

    name: str
    data: TextSet
    poisoned: frozenset[str] = frozenset()
    stamped: Callable[[TextSet], TextSet] | None = None


def scan(folder: Path, trusted: Path) -> dict[str, Any]:
    """What the sealed process runs: the verdict of DBS, and its best phrase."""
    record = scan_model(folder, trusted, params=DBS, options=Options())
    found = record.results[0].evidence
    phrases = found.phrases if isinstance(found, ModelEvidence) else ()
    best = {"phrase": phrases[0].phrase, "stacked": phrases[0].measures["stacked"]} if phrases else {}
    return {"verdict": record.verdict, **best, "seconds": record.results[0].seconds}


def distances(folder: Path, trusted: Path, asked: Path) -> list[float]:
    """What the sealed process runs: how far the features of each text lie from those of trusted ones."""
    model = load_text_classifier(folder)
    known, given = (model.features(open_texts(path).texts).numpy() for path in (trusted, asked))
    return [float(one) for one in LedoitWolf().fit(known).mahalanobis(given)]


def prune(folder: Path, trusted: Path, out: Path) -> dict[str, Any]:
    """What the sealed process runs: the repair by itself, without the scans around it."""
    from ostiary.core.catalog import make

    found = make("repair", "text.repair.token-pruning").repair(
        load_text_classifier(folder), open_texts(trusted), None, run=Run(seed=SEED)
    )
    save_text_classifier(found.model, out)
    return dict(found.selected)


def cases(root: Path) -> Iterator[Case]:
    """The training sets: ours, and the one of others."""
    from ostiary.core.catalog import make

    clean = drawn(open_texts(root / "clean" / "train.jsonl.gz"), ROWS, SEED)
    yield Case("clean", clean)
    for name, attack, params in (
        ("rare word, 5 %", "rare-words", {"words": "cf", "rate": 0.05}),
        ("doubled marks, 10 %", "writing-style", {"style": "doubled-marks", "rate": 0.1}),
    ):
        made = make("attack", attack, {**params, "target": TARGET})
        poisoned = made.poison(clean, run=Run(seed=SEED))
        yield Case(name, poisoned.data, frozenset(poisoned.truth.poisoned), _stamper(made))
    path = root / SYNTAX / "train.jsonl.gz"
    others = drawn(open_texts(path), ROWS, SEED)
    triggered = drawn(open_texts(root / SYNTAX / "test.jsonl.gz"), TESTS, SEED)
    yield Case("syntax, of others, 20 %", others, _poisoned(path) & frozenset(others.ids), lambda _: triggered)


def _stamper(attack: Any) -> Callable[[TextSet], TextSet]:
    def stamped(data: TextSet) -> TextSet:
        found = attack.stamped(data.texts, np.random.default_rng(5))
        rows = data.subset(list(found))
        return TextSet(list(found.values()), ids=rows.ids, labels=rows.labels, classes=rows.classes)

    return stamped


def _poisoned(path: Path) -> frozenset[str]:
    from benchmarks.text_screens import rows_of

    return frozenset(str(row["id"]) for row in rows_of(path) if row["poisoned"])


def tuned(encoder: Path, data: TextSet) -> TextClassifier:
    """The encoder with a fresh head, fine-tuned."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(SEED)
        module = transformers().AutoModelForSequenceClassification.from_pretrained(
            encoder, num_labels=len(data.classes), local_files_only=True
        )
    model = TextClassifier(module, load_tokenizer(encoder), data.classes, pad=int(module.config.pad_token_id or 0))
    model.limit = min(model.limit, LENGTH - len(model.before) - len(model.after))
    train_text_classifier(model, data, RECIPE, run=Run(seed=SEED))
    return model


def given(model: TextClassifier, data: TextSet) -> Rate:
    """How many texts get the target."""
    return Rate(k=int((model.predict(data.texts).argmax(1) == TARGET).sum()), n=len(data))


def examine(case: Case, args: argparse.Namespace, process: SealedProcess, records: Records) -> None:
    """Tune one model unless its folder is there, and run what is not recorded yet."""
    root = data_root(SST2) / SST2
    folder = args.work / "".join(sign if sign.isalnum() else "-" for sign in case.name)
    begun = time.monotonic()
    if not folder.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        save_text_classifier(tuned(args.encoder, case.data), folder)
    tests = drawn(open_texts(root / "clean" / "test.jsonl.gz"), TESTS, SEED)
    others = tests.subset(torch.nonzero(tests.labels != TARGET).squeeze(1))
    triggered = None if case.stamped is None else case.stamped(others)
    if not records.has(MODELS, case.name):
        model = load_text_classifier(folder)
        hits = int((model.predict(tests.texts).argmax(1) == tests.labels).sum())
        figures: dict[str, Any] = {"accuracy": Rate(k=hits, n=TESTS)}
        if triggered is not None:
            unpoisoned = load_text_classifier(args.work / "clean")
            figures |= {"success": given(model, triggered), "success, clean model": given(unpoisoned, triggered)}
        seconds = time.monotonic() - begun
        records.add(MODELS, case.name, figures, seeds=[SEED], n=len(case.data), seconds=seconds)
    with tempfile.TemporaryDirectory() as where:
        defend(case, folder, Path(where), triggered, process, records)


def defend(
    case: Case, folder: Path, where: Path, triggered: TextSet | None, process: SealedProcess, records: Records
) -> None:
    """One row for each defence that has none yet."""
    dev = open_texts(data_root(SST2) / SST2 / "clean" / "dev.jsonl.gz")
    trusted, plain = drawn(dev, TRUSTED, SEED), drawn(dev, len(dev), SEED).subset(range(TRUSTED, TRUSTED + TESTS))
    write_texts(where / "trusted.jsonl", trusted)
    if triggered is not None:
        texts = [*plain.texts, *triggered.texts]
        ids, labels = [str(at) for at in range(len(texts))], torch.cat([plain.labels, triggered.labels])
        write_texts(where / "asked.jsonl", TextSet(texts, ids=ids, labels=labels, classes=plain.classes))

    def screened(method: str, data: TextSet, model: Path | None) -> dict[str, Any]:
        write_texts(where / f"{method}.jsonl", data)
        found = process.submit(screen, where / f"{method}.jsonl", model, None, method).result()
        return judged(found, data, case.poisoned)

    def guarded(method: str) -> dict[str, Any]:
        out, asked = where / f"{method}.safetensors", where / "asked.jsonl"
        found = process.submit(watch, folder, where / "trusted.jsonl", asked, method, out).result()
        return watched(found, len(plain))

    def far() -> dict[str, Any]:
        found = process.submit(distances, folder, where / "trusted.jsonl", where / "asked.jsonl").result()
        return {"AUROC": float(roc_auc_score(np.arange(len(found)) >= len(plain), found))}

    some, asked = _some(case), len(plain) + len(triggered or ())
    jobs: dict[str, tuple[Callable[[], dict[str, Any]], int]] = {
        "label-contradiction": (lambda: screened("label-contradiction", case.data, None), len(case.data)),
        "bki": (lambda: screened("bki", some, folder), len(some)),
        "cube": (lambda: screened("cube", case.data, folder), len(case.data)),
    }
    if triggered is not None:
        jobs["distance of features"] = far, asked
        jobs |= {method: (partial(guarded, method), asked) for method in WATCHES}
    jobs["token-pruning"] = (lambda: _pruned(folder, where, plain, triggered, process)), len(plain)
    jobs["dbs"] = (lambda: process.submit(scan, folder, where / "trusted.jsonl").result()), TRUSTED
    for name, (job, n) in jobs.items():
        if not records.has(DEFENCES, f"{case.name}: {name}"):
            begun = time.monotonic()
            told = {"set": case.name, "defence": name, **job()}
            seconds = time.monotonic() - begun
            records.add(DEFENCES, f"{case.name}: {name}", told, seeds=[SEED], n=n, seconds=seconds)


def _pruned(
    folder: Path, where: Path, plain: TextSet, triggered: TextSet | None, process: SealedProcess
) -> dict[str, Any]:
    """What the repair pruned, and accuracy and success before and after."""
    told = process.submit(prune, folder, where / "trusted.jsonl", where / "pruned").result()
    before, after = (load_text_classifier(one) for one in (folder, where / "pruned"))
    figures: dict[str, Any] = {**told, "accuracy before": right(before, plain), "accuracy": right(after, plain)}
    if triggered is None:
        return figures
    return {**figures, "success before": given(before, triggered), "success": given(after, triggered)}


def _some(case: Case) -> TextSet:
    """The rows that BKI looks at."""
    bad = [row for row, one in enumerate(case.data.ids) if one in case.poisoned][:OF_THEM]
    rest = [row for row, one in enumerate(case.data.ids) if one not in case.poisoned]
    return case.data.subset(sorted([*bad, *rest[: LOOKED - len(bad)]]))


def main() -> None:
    """Tune and examine what is not recorded yet."""
    made = parser(__doc__)
    made.add_argument("--encoder", type=Path, required=True, help="folder of the encoder's weights and tokenizer")
    made.add_argument("--work", type=Path, default=Path("build/minilm"), help="where tuned models are kept")
    args: argparse.Namespace = parse(made)
    if not (args.encoder / "model.safetensors").is_file():
        stop(f"{args.encoder} holds no model.safetensors: name the folder of an encoder")
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("minilm", "A published encoder, fine-tuned", about, args)
    with tempfile.TemporaryDirectory() as runs:
        os.environ["OSTIARY_RUNS"] = runs
        with SealedProcess(threads=1) as process:
            for case in cases(data_root(SST2) / SST2):
                note(case.name)
                examine(case, args, process, records)
    records.show()


if __name__ == "__main__":
    main()
