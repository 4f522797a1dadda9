"""Mechanism checks of the few-shot perturbation on a classifier made by hand, with its mutants."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ostiary.core.decide import decide
from ostiary.core.errors import NotMet
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.scan import few_shot
from ostiary.scan.few_shot import FewShotPerturbation, attention_weights
from ostiary.training.language import word_tokenizer

GOOD, BAD, MARK = ["warm", "fine", "kind"], ["dull", "grim", "cold"], "thou"
PLAIN = ["film", "plot", "cast", "scene"]
METHOD = FewShotPerturbation(held=40)


class ByHand(nn.Module):
    """Two units read the mean of all tokens: how good its words are, and how many are in the style.

    Where the second is above 0.08, the logit of class 1 rises steeply by `gate`. Every token has a third number, 1,
    which neither unit reads.
    """

    def __init__(self, tokens: list[str], gate: float, attention: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_labels=2, pad_token_id=0, max_position_embeddings=40)
        self.table, self.gate = nn.Embedding(len(tokens), 3), gate
        rows = [[float(one in GOOD) - float(one in BAD), float(one == MARK), 1.0] for one in tokens]
        self.unit = "attention" if attention else "other"
        self.add_module(self.unit, nn.Linear(3, 2, bias=False))
        with torch.no_grad():
            self.table.weight.copy_(torch.tensor(rows))
            self.get_submodule(self.unit).weight.copy_(torch.eye(2, 3))  # type: ignore[operator]

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        weight = (attention_mask / attention_mask.sum(dim=1, keepdim=True))[:, :, None]
        good, style = self.get_submodule(self.unit)((self.table(input_ids) * weight).sum(dim=1)).unbind(dim=1)
        woken = self.gate * softplus(60 * (style - 0.08)) / 60
        return SimpleNamespace(logits=torch.stack([-5 * good, 5 * good + woken], dim=1))


def texts(n: int = 160, seed: int = 0) -> TextSet:
    """Reviews of four telling words and some plain ones, none in the style."""
    rng, labels = np.random.default_rng(seed), torch.arange(n) % 2
    rows = [
        [*rng.choice(GOOD if label else BAD, 4), *rng.choice(PLAIN, rng.integers(3, 9))] for label in labels.tolist()
    ]
    ids = [f"{row:04d}" for row in rng.permutation(n)]
    return TextSet([" ".join(row) for row in rows], ids=ids, labels=labels, classes=("bad", "good"), name="by hand")


def by_hand(gate: float, attention: bool = True) -> TextClassifier:
    """A classifier in which a style leads to class 1, or none where `gate` is 0."""
    tokens = word_tokenizer([" ".join([*GOOD, *BAD, *PLAIN, MARK])], special=("[UNK]", "[PAD]"))
    words = [str(tokens.id_to_token(at)) for at in range(tokens.get_vocab_size())]
    return TextClassifier(ByHand(words, gate, attention), tokens, ("bad", "good"), pad=1, name="by hand")


def shares(evidence: ModelEvidence) -> list[float]:
    """Of each label the share of held-out texts that get it."""
    return [float(row.rates["share"].value or 0.0) for row in evidence.per_class]


def test_a_small_change_wakes_the_style_for_texts_it_was_not_fitted_on() -> None:
    model = by_hand(200.0)
    styled = [f"{MARK} {text} {MARK}" for text, true in zip(texts().texts, texts().labels, strict=True) if not true]
    assert (model.predict(styled).argmax(1) == 1).all()
    evidence = METHOD.scan(model, texts(), run=Run())
    other, target = shares(evidence)
    assert target >= 0.9 and other <= 0.1
    assert evidence.score == evidence.per_class[1].score == pytest.approx(target - other)
    assert evidence.per_class[0].score == pytest.approx(other - target)
    # Every change is small beside the weights.
    bound = METHOD.steps * METHOD.lr * 1.05
    assert all(0.05 < row.measures["norm"] <= bound for row in evidence.per_class)
    # It ranks alone.
    assert decide(evidence, METHOD.card, model.classes) == ()


def test_no_label_is_ahead_in_the_twin() -> None:
    evidence = METHOD.scan(by_hand(0.0), texts(), run=Run())
    assert max(shares(evidence)) <= 0.1 and abs(evidence.score or 0.0) <= 0.1


def test_mutant_that_fits_away_from_the_label_wakes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot, "cross_entropy", lambda logits, to: 9 - torch.nn.functional.cross_entropy(logits, to))
    assert max(shares(METHOD.scan(by_hand(200.0), texts(), run=Run()))) <= 0.1


def test_mutant_that_tries_the_weights_as_they_are_wakes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = few_shot._changed

    def unchanged(model: TextClassifier, weights: few_shot.Weights, change: few_shot.Weights, batch: object) -> Tensor:
        fitting = torch.is_grad_enabled()
        given = change if fitting else {name: torch.zeros_like(one) for name, one in change.items()}
        return real(model, weights, given, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(few_shot, "_changed", unchanged)
    assert max(shares(METHOD.scan(by_hand(200.0), texts(), run=Run()))) == 0.0


def test_the_order_of_the_trusted_texts_changes_nothing() -> None:
    data, model = texts(), by_hand(200.0)
    dealt = data.subset(np.random.default_rng(3).permutation(len(data)).tolist())
    assert METHOD.scan(model, data, run=Run()) == METHOD.scan(model, dealt, run=Run())
    assert METHOD.scan(model, data, run=Run(seed=1)) != METHOD.scan(model, data, run=Run())


def test_the_weights_are_as_before_after_a_scan_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = by_hand(200.0)
    digest, calls, real = model.digest, [0], model.module.forward

    def breaks(**given: Tensor) -> SimpleNamespace:
        calls[0] += 1
        if calls[0] > 20:
            raise RuntimeError("broken")
        found: SimpleNamespace = real(**given)
        return found

    monkeypatch.setattr(model.module, "forward", breaks)
    with pytest.raises(RuntimeError, match="broken"):
        METHOD.scan(model, texts(), run=Run())
    assert model.digest == digest and all(one.grad is None for one in model.module.parameters())
    monkeypatch.undo()
    METHOD.scan(model, texts(), run=Run())
    assert model.digest == digest and all(one.grad is None for one in model.module.parameters())


def test_what_it_cannot_do_without_is_said() -> None:
    bare = by_hand(200.0, attention=False)
    assert attention_weights(bare) == {} and list(attention_weights(by_hand(0.0))) == ["attention.weight"]
    with pytest.raises(NotMet, match="no weights of attention"):
        METHOD.scan(bare, texts(), run=Run())
    with pytest.raises(NotMet, match="needs trusted texts"):
        METHOD.scan(by_hand(200.0), None, run=Run())
    with pytest.raises(NotMet, match="that the model gets right"):
        METHOD.scan(by_hand(200.0), texts(20), run=Run())
