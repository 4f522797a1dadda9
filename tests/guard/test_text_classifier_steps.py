"""The guards of classifiers of texts, step by step, their files, and a classifier behind one."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bag_case import TRIGGER, WORDS, bag, said, triggered
from safetensors.torch import save_file

from ostiary.core.errors import FormatError, ModelError, NotMet
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.guard import wrap
from ostiary.guard.fitted import MOST_JSON, Fitted, load_guard
from ostiary.guard.onion import FittedOnion, Onion
from ostiary.guard.rap import FittedRap, Rap, falls
from ostiary.guard.text_strip import FittedTextStrip, TextStrip, tf_idf
from ostiary.models.ngram import Ngram
from ostiary.models.tokens import table_of

METHODS = (TextStrip(copies=6), Rap(steps=60), Onion())


def fitted(method: Any, n: int = 200) -> Any:
    return method.fit(bag(), said(n, seed=1), run=Run(seed=0))


def test_a_word_weighs_by_how_often_it_stands_here_and_how_rarely_elsewhere() -> None:
    found = tf_idf([["a", "a", "b"], ["b"], []])
    assert found == [
        {"a": pytest.approx(2 * (math.log(4 / 2) + 1)), "b": pytest.approx(math.log(4 / 3) + 1)},
        {"b": pytest.approx(math.log(4 / 3) + 1)},
    ]


def test_half_of_the_words_of_every_copy_are_those_of_its_overlay() -> None:
    guard = FittedTextStrip(torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64), [["x", "y"], ["z"]], 0.0, "m")
    text = "a b c d e"
    for copy, words in zip(guard.copies(text, 64), ({"x", "y"}, {"z"}), strict=True):
        same = [own == new for own, new in zip(text.split(), copy.split(), strict=True)]
        assert same.count(False) == 2
        assert {new for new, kept in zip(copy.split(), same, strict=True) if not kept} <= words
    assert guard.copies(text, 64) == guard.copies(text, 64) != guard.copies(f"{text} ", 64)
    assert [len(copy.split()) for copy in guard.copies("a " * 100_000, 64)] == [64, 64]
    assert guard.copies("", 64) == ["", ""]


def test_strip_scores_by_hand() -> None:
    """Of a text of one word nothing is replaced: the score is minus the entropy of its prediction."""
    guard = fitted(TextStrip(copies=3))
    p = bag().predict(["good1"])[0]
    assert guard.score(bag(), ["good1"]).tolist() == [pytest.approx(float((p * p.log2()).sum()), abs=1e-6)]


def test_a_word_is_fitted_at_its_norm_until_trusted_texts_fall_as_far_as_is_wanted() -> None:
    guard, data = fitted(Rap(low=0.1, high=0.3)), said(200, seed=1)
    rare = table_of(bag().module)[[WORDS.index(TRIGGER), WORDS.index("odd")]].norm(dim=1)
    norms = guard.vectors.norm(dim=1)
    assert torch.allclose(norms, norms[:1]) and float((rare - norms[0]).abs().min()) < 1e-4
    rows = [bag().encode(text) for text in data.texts]
    before = bag().predict(data.texts)
    fall, predicted = falls(bag(), rows, before, guard.vectors), before.argmax(1)
    for label in (0, 1):
        assert 0.08 <= float(fall[predicted == label].mean()) <= 0.32
    none = torch.zeros_like(guard.vectors)
    assert falls(bag(), rows, before, none).abs().max() < 1e-6


def test_the_falls_are_those_of_the_vector_in_front() -> None:
    guard = fitted(Rap(steps=5))
    text = "good1 bad2 good3 plain1"
    logits = bag().logits([text]).detach()[0]
    own, label = logits.softmax(0), int(logits.argmax())
    wanted = (logits + guard.vectors[label]).softmax(0)[label] - own[label]
    assert guard.score(bag(), [text]).tolist() == [pytest.approx(float(wanted), abs=1e-6)]


def test_a_model_that_gives_some_class_to_no_trusted_text_is_told() -> None:
    data = said(80)
    texts = ["good1 good2 good3"] * 80
    with pytest.raises(NotMet, match="it gives none 'bad'"):
        Rap().fit(bag(), TextSet(texts, ids=data.ids, labels=data.labels, classes=data.classes), run=Run())


def test_trusted_texts_without_words_are_told() -> None:
    data = said(80)
    with pytest.raises(NotMet, match="texts with words"):
        TextStrip().fit(bag(), TextSet([" "] * 80, ids=data.ids, labels=data.labels, classes=data.classes), run=Run())


def test_onion_scores_by_the_word_that_is_missed_least() -> None:
    ngram = Ngram.fit(["good1 plain1 .", "good2 plain1 ."] * 4)
    guard = FittedOnion(torch.from_numpy(ngram.corpus), list(ngram.vocabulary), 0.0, "m")
    row = ngram.encode(["good1", "cf", "plain1", "."])
    assert guard.score(bag(), ["Good1 cf plain1.", ""]).tolist() == [pytest.approx(max(ngram.falls(row))), 0.0]


@pytest.mark.parametrize("method", METHODS, ids=lambda one: str(one.card.name))
def test_a_classifier_behind_a_guard_answers_as_itself_and_is_told_what_to_refuse(method: Any, tmp_path: Path) -> None:
    guard, texts = fitted(method), [*said(20, seed=7).texts, *triggered(20), ""]
    found = wrap(bag(), guard)(texts)
    assert torch.allclose(found.probabilities, bag().predict(texts))
    assert torch.equal(found.flagged, guard.flagged(found.scores)) and 0 < int(found.flagged.sum()) < len(texts)
    guard.save(tmp_path / "guard.safetensors")
    refused = wrap(bag(), tmp_path / "guard.safetensors", refuse=True)(texts)
    assert torch.equal(refused.probabilities.isnan().all(1), found.flagged)
    assert wrap(bag(), guard)([]).scores.shape == (0,)


def strip(**fields: Any) -> FittedTextStrip:
    weights = fields.pop("weights", torch.ones(2, dtype=torch.float64))
    return FittedTextStrip(weights, fields.pop("overlays", [["a", "b"]]), 0.0, "m")


@pytest.mark.parametrize(
    "make",
    [
        lambda: strip(overlays=[]),
        lambda: strip(overlays=[["a", 1]]),
        lambda: strip(overlays=["ab"]),
        lambda: strip(overlays={"a": 1}),
        lambda: strip(overlays=[["a", "b"], []]),
        lambda: strip(weights=torch.ones(3, dtype=torch.float64)),
        lambda: strip(weights=torch.ones(2)),
        lambda: strip(weights=torch.tensor([1.0, math.nan], dtype=torch.float64)),
        lambda: strip(weights=torch.tensor([0.0, 1.0], dtype=torch.float64)),
        lambda: FittedRap(torch.ones(2), 0.0, "m"),
        lambda: FittedRap(torch.full((2, 2), math.inf), 0.0, "m"),
        lambda: FittedRap(torch.ones(2, 2, dtype=torch.int64), 0.0, "m"),
        lambda: FittedOnion(torch.ones(2, dtype=torch.int64), ["a"], 0.0, "m"),
        lambda: FittedOnion(torch.tensor([9], dtype=torch.int32), ["a"], 0.0, "m"),
        lambda: FittedOnion(torch.tensor([[1]], dtype=torch.int32), ["a"], 0.0, "m"),
        lambda: FittedOnion(torch.tensor([1], dtype=torch.int32), ["a", "a"], 0.0, "m"),
        lambda: FittedOnion(torch.tensor([1], dtype=torch.int32), [["a"]], 0.0, "m"),
        lambda: FittedOnion(torch.tensor([1], dtype=torch.int32), {"a": 1}, 0.0, "m"),
    ],
    ids=lambda _: "field",
)
def test_fields_that_no_fit_gives_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"word|vector"):
        make()


@pytest.mark.parametrize("words", ["[" * 100_000, "{}", "[1]", '["a"', "null", '"' + "a" * MOST_JSON + '"'])
@pytest.mark.parametrize("kind", ["onion", "strip"])
def test_hostile_texts_in_a_file_are_no_guard(kind: str, words: str, tmp_path: Path) -> None:
    tensors = {"onion": {"corpus": torch.ones(1, dtype=torch.int32)}, "strip": {"weights": torch.ones(1).double()}}
    about = {"threshold": "0", "model_digest": "m", "false_rejection": "null", "ostiary.guard": f"text.guard.{kind}"}
    named = {"vocabulary": words, "overlays": words}
    save_file(tensors[kind], tmp_path / "guard.safetensors", {**about, **named})
    with pytest.raises(FormatError, match=r"guard\.safetensors"):
        load_guard(tmp_path / "guard.safetensors")


def test_words_of_another_size_are_refused_before_they_are_used() -> None:
    guard: Fitted = FittedRap(torch.ones(2, 9), 0.0, bag().digest)
    with pytest.raises(ModelError, match=r"words of \(2, 9\), the model takes \(2, 2\)"):
        wrap(bag(), guard)
