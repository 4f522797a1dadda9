"""Rows that repeat one another: by hand, against all pairs, and what a user is told of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from text_case import chat, reviews

from ostiary.api import Options, screen_data
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.provenance.samples.near import ALIKE, signature
from ostiary.screen import duplicates
from ostiary.screen.duplicates import repeats, told_of

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def labelled(texts: list[str], labels: list[int]) -> TextSet:
    ids = [f"r{row}" for row in range(len(texts))]
    return TextSet(texts, ids=ids, labels=torch.tensor(labels), classes=("x", "y"))


def test_copies_near_copies_and_contradictions_by_hand() -> None:
    texts = [LONG, "a plain row", LONG.upper() + "!!", "A  plain, row.", f"{LONG} seventeen", "others here", "", "..."]
    found = repeats(labelled(texts, [0, 1, 0, 1, 1, 0, 0, 1]), Run())
    assert (found.rows, found.exact, found.near) == (8, 2, 1)
    assert found.disagreeing == (0, 2, 4)
    said = told_of(found, labelled(texts, [0] * 8))
    assert said is not None and said.endswith("groups with more than one label hold 3 rows (r0, r2, r4)")


def test_the_answers_of_a_chat_are_what_differs() -> None:
    base = chat(200)
    texts, answers = [*base.texts, base.texts[0], base.texts[1]], [*base.answers, base.answers[0], "Something else."]
    data = TextSet(texts, ids=list(map(str, range(202))), answers=answers)
    found = repeats(data, Run())
    assert found.exact == repeats(base, Run()).exact + 2 and set(found.disagreeing) >= {1, 201}
    assert 200 not in found.disagreeing and "more than one answer" in str(told_of(found, data))


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_groups_are_those_of_all_pairs(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever the order of the rows is."""
    monkeypatch.setattr(duplicates, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    texts = [" ".join(str(word) for word in rng.choice(LONG.split(), 40)) for _ in range(60)]
    for row in range(0, 40, 4):
        texts[row + 1] = texts[row] + " and more"
        texts[row + 2] = texts[row + 1] + " of it"
    signed = np.stack([signature(text) for text in texts])
    alike = (signed[:, None] == signed[None]).mean(2) >= ALIKE
    for _ in range(6):
        alike = alike @ alike
    wanted = 60 - len({tuple(row) for row in alike.tolist()})
    data = labelled(texts, [0] * 60)
    assert wanted >= 20
    assert repeats(data, Run()).near == wanted == repeats(data.subset(rng.permutation(60).tolist()), Run()).near


def test_few_copies_that_agree_are_no_caution() -> None:
    texts = [f"row {row} about {row * 7} and {row * 13}" for row in range(300)]
    assert told_of(repeats(labelled(texts, [0] * 300), Run()), labelled(texts, [0] * 300)) is None
    for copies, told in ((2, False), (3, True)):
        data = labelled([*texts[:-copies], *texts[:copies]], [0] * 300)
        found = repeats(data, Run())
        assert found.exact == copies and (told_of(found, data) is not None) == told
    assert repeats(labelled(["", "?"], [0, 1]), Run()) == duplicates.Repeats(2, 0, 0, ())


def test_a_screening_tells_and_accuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))
    base = reviews(300)
    texts = [*base.texts, *base.texts[:12]]
    labels = torch.cat([base.labels, 1 - base.labels[:1], base.labels[1:12]])
    data = TextSet(texts, ids=list(map(str, range(312))), labels=labels, classes=base.classes)
    for one, cautioned in ((base, False), (data, True)):
        record = screen_data(one)
        assert record.config["repeats"]["exact"] == (12 if cautioned else 0)
        assert ("OS940" in {caution.code for caution in record.cautions}) == cautioned
        assert record.verdict == "none-found"
    late = screen_data(data, options=dataclasses.replace(Options(), time_limit=0.0))
    assert "repeats" not in late.config and any("not counted" in caution.text for caution in late.cautions)
