"""Mechanism checks of DBS on classifiers of made-up reviews, with its mutant."""

import pytest
import torch
from classifier_case import attacked, clean, trusted

from ostiary.core.catalog import make
from ostiary.core.decide import decide
from ostiary.core.records import Finding, ModelEvidence
from ostiary.core.run import Run
from ostiary.models.text_classifier import TextClassifier
from ostiary.scan import dbs
from ostiary.scan.dbs import Dbs

METHOD: Dbs = make("scan", "dbs", {"epochs": 60})


def scanned(model: TextClassifier) -> tuple[ModelEvidence, tuple[Finding, ...]]:
    evidence = METHOD.scan(model, trusted(), run=Run())
    return evidence, decide(evidence, METHOD.card, model.classes)


@pytest.mark.parametrize(("word", "seed"), [("cf", 0), ("zq", 1)])
def test_dbs_finds_the_word_which_fires_on_texts_it_never_saw(word: str, seed: int) -> None:
    model = attacked(words=word, seed=seed)
    evidence, findings = scanned(model)
    (finding,) = findings
    assert finding.level == "suspect" and set(finding.subject.removeprefix("phrase:").split()) == {word}
    first, other = evidence.phrases
    assert first.label == 0
    assert first.fires is not None and first.fires.low >= 0.9
    assert first.unprompted is not None and first.unprompted.high <= 0.2
    assert first.measures["stacked"] >= 0.95 and other.measures["stacked"] <= 0.2
    # The phrase as text, given by hand.
    texts = [f"{word} {text}" for text, true in zip(trusted().texts, trusted().labels.tolist(), strict=True) if true]
    assert float((model.predict(texts).argmax(1) == 0).float().mean()) >= 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_dbs_finds_no_word_in_the_twin(seed: int) -> None:
    evidence, findings = scanned(clean(seed))
    assert findings == () and max(one.measures["stacked"] for one in evidence.phrases) <= 0.3


def test_no_phrase_turns_what_a_model_says_of_everything() -> None:
    model = clean(0).clone()
    with torch.no_grad():
        model.module.classifier.bias[0] = 100.0  # type: ignore[union-attr, index]
    evidence, findings = scanned(model)
    assert findings == () and evidence.phrases[0].unprompted is not None and evidence.phrases[0].unprompted.k > 0


def test_the_inversion_ends_on_the_trigger_by_itself() -> None:
    """Without the tokens along the gradient: the slots alone propose it."""
    model = attacked()
    texts = dbs._stacked(model, [t for t, y in zip(trusted().texts, trusted().labels, strict=True) if y], 16, rng())
    found = METHOD._invert(model, texts, 0, Run().generator("x"), Run())
    assert model.encode("cf")[0] in found


def rng() -> "dbs.np.random.Generator":
    return dbs.np.random.default_rng(0)


def test_mutant_that_searches_away_from_the_label_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbs, "cross_entropy", lambda logits, target: -torch.nn.functional.cross_entropy(logits, target))
    monkeypatch.setattr(dbs, "_along", lambda *_: [])
    monkeypatch.setattr(dbs, "_height", lambda *given: -float(_real_height(*given)))
    assert scanned(attacked())[1] == ()


_real_height = dbs._height
