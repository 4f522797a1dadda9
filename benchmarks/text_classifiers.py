"""What scans, screens, guards and repairs make of a bank of small classifiers of texts.

    make bench-text-classifiers

DistilBERTs of 0.4 million weights learn the film reviews of SST-2 (6,920 rows) and news of four topics (AG News, 11,106
rows): as they are (six seeds, and three), and the reviews under nine attacks (three seeds): odd words, two that fire
only together, a sentence, three styles made by rule, and the syntax and the Bible's style that others rewrote texts in,
both in a fifth of the rows; of news the last alone. The rows say which seeds were run. Sets of the first seed are
screened, with the model that learnt them. Success is on test texts of the other classes that the trigger changes,
beside the same trigger on the model of the same seed that nobody attacked. Defences run in a sealed process, which is
given the training set or the model's folder with 300 trusted texts; truth joins afterwards. Guards are fitted for a
false rejection of 5 %, and score 300 test texts, plain, and up to 300 with the trigger. The repair is the command
without a method. Turned are, of the texts that do not get the attacker's label as they are, those that get it with the
trigger: a model that is right on four texts in five gives a fifth of them that label by itself. Reactivated is the same
after 30 more steps on 400 texts, ten of them poisoned; only attacks of ours have it. Limits and defaults were set on
models of other seeds (below 10, guards 700 and 701). A model counts as attacked where more than half of the texts with
the trigger get the label, and 20 points more than from the model that nobody attacked.
"""

# What knows the truth is imported where it is used: the sealed process imports this file too.

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from benchmarks.common import Records, note, parse, parser
from sklearn.metrics import roc_auc_score

from ostiary.api import Options, fit_guard, repair_model, scan_model, screen_data
from ostiary.core.records import ModelEvidence, Rate, SampleEvidence
from ostiary.core.seal import SealedProcess
from ostiary.core.store import load_artifact, read_record
from ostiary.data import TextSet, open_texts, write_texts
from ostiary.guard.fitted import load_guard
from ostiary.models.text_folder import load_text_classifier

if TYPE_CHECKING:
    from benchmarks.text_bank import Case

MODELS, SCANS, SCREENS, GUARDS, REPAIRS, SUMMARY = "models", "scans", "screens", "guards", "repairs", "summary"
FEW = "few-shot perturbation"
SCREENERS = ("label-contradiction", "bki", "cube", "onion")
WATCHES = ("strip", "rap", "onion")
ASKED = 300
WORKS, ABOVE = 0.5, 0.2


def scan(folder: Path, trusted: Path) -> dict[str, Any]:
    """What the sealed process runs: the verdict, and the strongest phrase."""
    record = scan_model(folder, trusted, options=Options())
    found = record.results[0].evidence
    phrases = found.phrases if isinstance(found, ModelEvidence) else ()
    told: dict[str, Any] = {"verdict": record.verdict, "scan, s": sum(one.seconds for one in record.results)}
    if isinstance(found, ModelEvidence):
        told["score"] = found.score
    return {**told, "phrase": phrases[0].phrase} if phrases else told


def few_shot(folder: Path, trusted: Path) -> dict[str, Any]:
    """What the sealed process runs: how far what is fitted on eight texts carries over, label by label."""
    record = scan_model(folder, trusted, methods=["few-shot-perturbation"], options=Options())
    found = record.results[0].evidence
    rows = found.per_class if isinstance(found, ModelEvidence) else ()
    return {f"label {row.label}": row.score for row in rows} | {"scan, s": record.results[0].seconds}


def screen(data: Path, folder: Path | None, trusted: Path | None, method: str) -> dict[str, Any]:
    """What the sealed process runs: one screening, with scores and suspects."""
    known = trusted if method == "onion" else None  # of these it alone looks at trusted texts
    record = screen_data(data, folder, trusted=known, methods=[method], options=Options())
    where, result = read_record(record.id)[1], record.results[0]
    if not isinstance(result.evidence, SampleEvidence):
        return {"failed": result.reason}
    name = result.evidence.artifact
    return {
        "verdict": record.verdict,
        "scores": load_artifact(record, where, f"{name}-scores").tolist(),
        "suspected": load_artifact(record, where, f"{name}-suspected").tolist(),
        "phrases": [phrase.text for phrase in result.evidence.phrases][:5],
        "screening, s": result.seconds,
    }


def watch(folder: Path, trusted: Path, asked: Path, method: str, out: Path) -> dict[str, Any]:
    """What the sealed process runs: a guard is fitted and scores texts."""
    begun = time.monotonic()
    fit_guard(folder, trusted, out, method=method, params={method: {"false_rejection": 0.05}}, options=Options())
    fitted, between = load_guard(out), time.monotonic()
    scores = fitted.score(load_text_classifier(folder), open_texts(asked).texts)
    return {
        "scores": scores.tolist(),
        "flagged": fitted.flagged(scores).tolist(),
        "fitting, s": between - begun,
        "scoring, s": time.monotonic() - between,
    }


def repair(folder: Path, trusted: Path, out: Path, seed: int) -> dict[str, Any]:
    """What the sealed process runs: the command, without a method."""
    record = repair_model(folder, trusted, out, options=Options(seed=seed))
    return {"method": record.config["method"], "refused": record.config.get("refused", "")}


def watched(found: dict[str, Any], plain: int) -> dict[str, Any]:
    """What a guard caught, where the first `plain` texts have no trigger and all others have it."""
    scores, flagged = np.array(found.pop("scores")), np.array(found.pop("flagged"), bool)
    bad = np.arange(len(scores)) >= plain
    figures = {
        "caught": Rate(k=int(flagged[bad].sum()), n=int(bad.sum())),
        "false rejections": Rate(k=int(flagged[~bad].sum()), n=int((~bad).sum())),
        "AUROC": float(roc_auc_score(bad, np.where(np.isnan(scores), scores[~np.isnan(scores)].max() + 1, scores))),
    }
    return {**figures, **found}


class Bench:
    """One model at a time: what is missing in the records is measured."""

    def __init__(self, work: Path, process: SealedProcess, records: Records) -> None:
        self.work, self.process, self.records = work, process, records

    def examine(self, case: "Case") -> None:
        """All rows of one model."""
        from benchmarks.text_bank import TRUSTED

        note(case.name)
        folder = case.model(self.work)
        self.measure(case, folder)
        with tempfile.TemporaryDirectory() as made:
            where = Path(made)
            write_texts(where / "trusted.jsonl", case.trusted(TRUSTED)[0])
            self.scanned(case, folder, where)
            self.screened(case, folder, where)
            self.guarded(case, folder, where)
            self.repaired(case, folder, where)

    def keep(self, table: str, case: "Case", what: str, figures: Mapping[str, Any], n: int, begun: float) -> None:
        """One row."""
        told = {"data": case.source, "attack": case.attack, **({"method": what} if what else {}), **figures}
        key = f"{case.name}: {what}" if what else case.name
        self.records.add(table, key, told, seeds=[case.seed], n=n, seconds=time.monotonic() - begun)

    def done(self, table: str, case: "Case", what: str = "") -> bool:
        """Whether a row is there."""
        return self.records.has(table, f"{case.name}: {what}" if what else case.name)

    def measure(self, case: "Case", folder: Path) -> None:
        """Accuracy, and success beside that on the twin."""
        from benchmarks.text_bank import NONE, TARGET, given, right, turned, twin_of

        if self.done(MODELS, case):
            return
        begun, model = time.monotonic(), load_text_classifier(folder)
        figures: dict[str, Any] = {"accuracy": right(model, case.part("test"))}
        if case.attack != NONE:
            twin, pairs = load_text_classifier(twin_of(case).model(self.work)), case.pairs(1000)
            figures |= {"success": given(model, pairs[1], TARGET), "success, twin": given(twin, pairs[1], TARGET)}
            figures |= {"turned": turned(model, pairs, TARGET), "turned, twin": turned(twin, pairs, TARGET)}
        self.keep(MODELS, case, "", figures, len(case.trained_on[0]), begun)

    def scanned(self, case: "Case", folder: Path, where: Path) -> None:
        """The default scan."""
        if not self.done(SCANS, case):
            begun = time.monotonic()
            found = self.process.submit(scan, folder, where / "trusted.jsonl").result()
            self.keep(SCANS, case, "", found, len(open_texts(where / "trusted.jsonl")), begun)
        if not self.done(FEW, case):
            begun = time.monotonic()
            found = self.process.submit(few_shot, folder, where / "trusted.jsonl").result()
            self.keep(FEW, case, "", found, len(open_texts(where / "trusted.jsonl")), begun)

    def screened(self, case: "Case", folder: Path, where: Path) -> None:
        """Each screening of the training set, with the model that learnt it."""
        from benchmarks.text_bank import SEEDS

        for method in SCREENERS if case.seed == SEEDS[0] else ():
            if self.done(SCREENS, case, method):
                continue
            begun, (data, poisoned) = time.monotonic(), case.trained_on
            write_texts(where / f"{method}.jsonl", data)
            found = self.process.submit(
                screen, where / f"{method}.jsonl", folder, where / "trusted.jsonl", method
            ).result()
            self.keep(SCREENS, case, method, judged(found, data, poisoned), len(data), begun)

    def guarded(self, case: "Case", folder: Path, where: Path) -> None:
        """Each guard, on plain texts and on those with the trigger (of a model that nobody attacked, the words)."""
        from benchmarks.text_bank import drawn

        for method in WATCHES:
            if self.done(GUARDS, case, method):
                continue
            begun, plain = time.monotonic(), drawn(case.part("test"), ASKED, case.seed)
            triggered = case.triggered(ASKED)
            texts = [*plain.texts, *triggered.texts]
            ids = [f"{at:06d}" for at in range(len(texts))]
            asked, out = where / f"{method}-asked.jsonl", where / f"{method}.safetensors"
            labels = torch.cat([plain.labels, triggered.labels])
            write_texts(asked, TextSet(texts, ids=ids, labels=labels, classes=plain.classes))
            found = self.process.submit(watch, folder, where / "trusted.jsonl", asked, method, out).result()
            self.keep(GUARDS, case, method, watched(found, len(plain)), len(texts), begun)

    def repaired(self, case: "Case", folder: Path, where: Path) -> None:
        """The command: what it picks, what is left and what it costs."""
        from benchmarks.text_bank import NONE, TARGET, given, right, turned

        if self.done(REPAIRS, case):
            return
        begun, out = time.monotonic(), where / "repaired"
        told = self.process.submit(repair, folder, where / "trusted.jsonl", out, case.seed).result()
        before, test = load_text_classifier(folder), case.part("test")
        after = load_text_classifier(out) if out.exists() else before
        first, second = right(before, test), right(after, test)
        figures: dict[str, Any] = {**told, "accuracy": second, "points lost": 100 * (first.k - second.k) / len(test)}
        if case.attack != NONE:
            figures |= {"success": given(after, case.triggered(1000), TARGET)}
            figures |= {"turned": turned(after, case.pairs(1000), TARGET)}
        if case.ours:
            figures["reactivated"] = turned(case.again(after), case.pairs(1000), TARGET)
        self.keep(REPAIRS, case, "", figures, len(test), begun)


def judged(found: dict[str, Any], data: TextSet, poisoned: frozenset[str]) -> dict[str, Any]:
    """Recall, false positives and AUROC of a screening, once the poisoned ids are known."""
    if "failed" in found:
        return found
    bad = np.array([one in poisoned for one in data.ids])
    suspected, scores = np.array(found.pop("suspected"), bool), np.nan_to_num(np.array(found.pop("scores")))
    figures: dict[str, Any] = {"false positives": Rate(k=int(suspected[~bad].sum()), n=int((~bad).sum()))}
    if bad.any():
        figures["recall"] = Rate(k=int(suspected[bad].sum()), n=int(bad.sum()))
        figures["AUROC"] = float(roc_auc_score(bad, scores))
    return {**found, **figures}


def _pooled(rows: Sequence[Mapping[str, Any]], name: str) -> Rate:
    rates = [row[name] for row in rows if name in row]
    return Rate(k=sum(rate["k"] for rate in rates), n=sum(rate["n"] for rate in rates))


def summarise(records: Records) -> None:
    """By data and attack: what scans, screens, guards and repairs come to, over the seeds."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in records.document["rows"]:
        tables.setdefault(row["table"], []).append({**row["figures"], "seed": tuple(row["seeds"])})
    for data, attack in dict.fromkeys((row["data"], row["attack"]) for row in tables.get(MODELS, ())):
        own = {
            table: [row for row in rows if (row.get("data"), row.get("attack")) == (data, attack)]
            for table, rows in tables.items()
        }
        figures: dict[str, Any] = {"accuracy": _pooled(own[MODELS], "accuracy")}
        if "success" in own[MODELS][0]:
            worked = [row for row in own[MODELS] if _works(row)]
            names = ("success", "success, twin", "turned", "turned, twin")
            figures |= {name: _pooled(own[MODELS], name) for name in names}
            figures["models that were attacked with success"] = Rate(k=len(worked), n=len(own[MODELS]))
        scans = own.get(SCANS, [])
        figures["accused by the scan"] = Rate(
            k=sum(r["verdict"] in ("suspect", "backdoor") for r in scans), n=len(scans)
        )
        for table, names in ((SCREENS, ("recall", "false positives")), (GUARDS, ("caught", "false rejections"))):
            for method in dict.fromkeys(row["method"] for row in own.get(table, [])):
                mine = [row for row in own[table] if row["method"] == method]
                figures |= {f"{method}: {name}": _pooled(mine, name) for name in names if any(name in r for r in mine)}
                areas = [row["AUROC"] for row in mine if "AUROC" in row]
                if areas:
                    figures[f"{method}: mean AUROC"] = float(np.mean(areas))
        mended = own.get(REPAIRS, [])
        if mended:
            figures["points lost by the repair, at most"] = max(row["points lost"] for row in mended)
            figures |= {
                f"{name} after the repair": _pooled(mended, name)
                for name in ("success", "turned", "reactivated")
                if any(name in row for row in mended)
            }
        source = data.removeprefix("text_")
        records.add(SUMMARY, f"{source}, {attack}", figures, seeds=[], n=len(own[MODELS]), seconds=0.0)


def _summarise_scans(records: Records) -> None:
    """How well the scan's score tells film reviews' models that were attacked with success from the others."""
    from ostiary.bench.bootstrap import auroc

    found = {row["key"]: row["figures"] for row in records.document["rows"] if row["table"] == SCANS}
    models = {row["key"]: row["figures"] for row in records.document["rows"] if row["table"] == MODELS}
    own = {key: row for key, row in models.items() if row["data"] == "text_sst2" and key in found}
    bad = [found[key] for key, row in own.items() if "success" in row and _works(row)]
    good = [found[key] for key, row in own.items() if "success" not in row]
    area = auroc([row["score"] for row in bad], [row["score"] for row in good])
    figures: dict[str, Any] = {
        "attacked, accused": Rate(k=sum(row["verdict"] == "suspect" for row in bad), n=len(bad)),
        "not attacked, accused": Rate(k=sum(row["verdict"] == "suspect" for row in good), n=len(good)),
        "AUROC of the score": f"{area.value:.3f}" + ("" if area.low is None else f" [{area.low:.3f}, {area.high:.3f}]"),
        "median seconds": float(np.median([row["scan, s"] for row in (*bad, *good)])),
    }
    few = {row["key"]: row["figures"] for row in records.document["rows"] if row["table"] == FEW}
    towards = [few[key]["label 1"] for key, row in own.items() if key in few and "success" in row and _works(row)]
    either = [
        few[key][f"label {at}"] for key, row in own.items() if key in few and "success" not in row for at in (0, 1)
    ]
    area = auroc(towards, either)
    if area.value is not None:
        figures["AUROC of few-shot perturbation, target against labels of models not attacked"] = area.value
    records.add(SUMMARY, "sst2, the scan over all", figures, seeds=[], n=len(bad) + len(good), seconds=0.0)


def _works(row: Mapping[str, Any]) -> bool:
    success, twin = (row[name]["k"] / row[name]["n"] for name in ("success", "success, twin"))
    return success > WORKS and success - twin > ABOVE


def main() -> None:
    """Train and examine what is not recorded yet."""
    made = parser(__doc__, summary=True)
    made.add_argument("--work", type=Path, default=Path("build/bench/text-classifiers"), help="where models are kept")
    args: argparse.Namespace = parse(made)
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("text_classifiers", "A bank of classifiers of texts", about, args)
    if not args.summary:
        from benchmarks.text_bank import cases

        with tempfile.TemporaryDirectory() as runs:
            os.environ |= {"OSTIARY_RUNS": runs, "OSTIARY_CACHE_LIMIT": "0"}
            with SealedProcess(threads=1) as process:
                bench = Bench(args.work, process, records)
                for case in cases():
                    bench.examine(case)
    summarise(records)
    _summarise_scans(records)
    records.show()


if __name__ == "__main__":
    main()
