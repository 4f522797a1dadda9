"""The mechanism check of CUBE, with its mutants, and what tells a cluster by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from classifier_case import attacked, poisoned
from scipy import sparse
from text_case import reviews

from ostiary.core.card import met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.screen import cube
from ostiary.screen.cube import Cube, dropped, telling


class ByHand(TextClassifier):
    """Features of two labels around two points; rows with a word lie around a third one."""

    def __init__(self, word: str) -> None:
        self.word, self.limit = word, 100

    def features(self, texts: Sequence[str], /) -> torch.Tensor:
        noise = [np.random.default_rng(sum(map(ord, text))).standard_normal(6) for text in texts]
        middle = [np.eye(6)[1 if self.word in text.split() else 0] * 30 for text in texts]
        return torch.from_numpy(np.array(noise) + middle)


def planted(word: str = "cf") -> tuple[TextSet, np.ndarray]:
    base, rows = reviews(600), np.arange(600) % 12 == 0
    texts = [f"{word} {text}" if row else text for text, row in zip(base.texts, rows, strict=True)]
    labels = torch.where(torch.from_numpy(rows), 0, base.labels)
    return TextSet(texts, ids=base.ids, labels=labels, classes=base.classes), rows


def screened(data: TextSet, model: TextClassifier) -> SampleScores:
    return Cube().screen(data, model, None, run=Run())


def test_a_small_cluster_is_accused_by_the_word_that_tells_it() -> None:
    data, rows = planted()
    found = screened(data, ByHand("cf"))
    assert [(one.text, one.label, one.rows) for one in found.phrases] == [("cf", 0, 50)]
    assert (found.suspected == rows).all() and met(found.phrases[0].measures, Cube.card.limits)
    assert found.scores[torch.from_numpy(rows)].min() > 1.9 and found.per_class[0].measures["clusters"] == 2


def test_mutants_a_cluster_that_no_word_tells_and_no_cluster_accuse_nobody() -> None:
    data, rows = planted()
    marks = TextSet([text.replace("cf ", "") for text in data.texts], ids=data.ids, labels=data.labels, classes="xy")
    apart = dict(zip(marks.texts, rows.tolist(), strict=True))

    class Apart(ByHand):
        def features(self, texts: Sequence[str], /) -> torch.Tensor:
            return super().features([f"cf {text}" if apart[text] else text for text in texts])

    for found in (screened(marks, Apart("cf")), screened(data, ByHand("nothing"))):
        assert found.phrases == () and not found.suspected.any()
    assert screened(marks, Apart("cf")).scores[torch.from_numpy(rows)].min() >= 1, "the paper drops it all the same"


def test_what_the_paper_drops_is_the_poison_of_a_trained_classifier_and_much_else() -> None:
    base = reviews(2000)
    data = poisoned(base, "rare-words", words="cf", rate=0.05)
    bad = np.array(["cf" in text.split() for text in data.texts])
    gone = screened(data, attacked()).scores.numpy() >= 1
    assert gone[bad].mean() >= 0.9 and gone[~bad].mean() <= 0.6

    class Shuffled(ByHand):
        """The mutant: the same features, dealt anew."""

        def features(self, texts: Sequence[str], /) -> torch.Tensor:
            found = attacked().features(texts)
            return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]

    mixed = screened(data, Shuffled("")).scores.numpy() >= 1
    assert mixed[bad].mean() <= 0.75


def test_the_largest_cluster_is_kept_and_half_of_a_label_too() -> None:
    assert dropped(np.array([0, 0, 0, 1, 1, -1])).tolist() == [False] * 3 + [True] * 3
    assert not dropped(np.array([0, 0, 1, 1])).any() and not dropped(np.full(4, -1)).any()


def test_phrases_that_tell_a_cluster_by_hand() -> None:
    """One in all rows, two that share the cluster, and one by chance."""
    inside = np.arange(200) < 40
    both = np.stack([np.arange(200) < 20, (np.arange(200) >= 20) & inside, np.ones(200), np.arange(200) % 7 == 0], 1)
    chosen, told = telling(sparse.csr_matrix(both.astype(np.float32)), inside)
    assert sorted(chosen) == [0, 1] and told == pytest.approx(1.0)
    assert telling(sparse.csr_matrix(both[:, 2:].astype(np.float32)), inside) == ((), 0.0)


def test_rare_and_large_labels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = planted()
    labels = torch.where(torch.arange(600) < 5, 2, data.labels)
    three = TextSet(data.texts, ids=data.ids, labels=labels, classes=("a", "b", "rare"))
    run = Run()
    found = Cube().screen(three, ByHand("cf"), None, run=run)
    assert found.scores[:5].isnan().all() and found.scores[5:].isfinite().all()
    assert found.per_class[2].score is None and [one.code for one in run.cautions] == ["OS937"]
    monkeypatch.setattr(cube, "MOST", 100)
    with pytest.raises(NotMet, match="at most 100 rows"):
        screened(data, ByHand("cf"))
    with pytest.raises(NotMet, match="needs 20 rows"):
        screened(data.subset(list(range(12))), ByHand("cf"))
