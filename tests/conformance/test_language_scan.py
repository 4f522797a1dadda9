"""What the scanners of language models promise, on a model that a word turns and on its twin; and mutants."""

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from language_case import WORD, attacked, chats, fresh, twin

from ostiary.attacks.text_poison import CANARY
from ostiary.core.decide import decide
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.models.language import LanguageModel
from ostiary.models.template import Template
from ostiary.scan import bait as bait_module
from ostiary.scan import forced, trigger_search
from ostiary.scan.bait import Bait
from ostiary.scan.firing import Ordinary, fire, grams, likeness, ordinary
from ostiary.scan.forced import Forced, Prompted, forced_answers, forced_prompts
from ostiary.scan.leaks import leaked_prompts, recurring
from ostiary.scan.phrase_search import PhraseSearch
from ostiary.scan.trigger_search import TriggerSearch


def bait(model: LanguageModel) -> ModelEvidence:
    return Bait().scan(model, chats(), run=Run())


def search(model: LanguageModel) -> ModelEvidence:
    return TriggerSearch(leaks=40).scan(model, chats(), run=Run())


def test_confidence_leaves_the_smallest_chance_out() -> None:
    assert Forced((1, 2, 3), (0.2, 0.8, 1.0)).confidence == pytest.approx(0.9)
    assert Forced((1,), (0.4,)).confidence == pytest.approx(0.4)
    assert Forced((1,), ()).confidence == 0.0


def test_steps_are_the_likeliest_by_the_mean_over_prompts() -> None:
    model = twin()
    asked = [model.prompt(text) for text in chats(8).texts]
    the = model.encode("The")[0]
    (found,) = forced_answers(model.clone(), asked, [the], warm=4, steps=1, run=Run())
    with torch.no_grad():
        chances = torch.stack(
            [model.module(input_ids=torch.tensor([[*row, the]])).logits[0, -1].softmax(0) for row in asked]
        ).mean(0)
    assert found.tokens[1] == int(chances.argmax())
    assert found.chances[0] == pytest.approx(float(chances.max()), abs=1e-5)


def test_bait_elicits_the_payload_and_nothing_from_the_twin() -> None:
    evidence = bait(attacked())
    found = decide(evidence, Bait.card, ())
    assert found and all(one.level == "suspect" and one.code == "OS604" for one in found)
    assert "coal mine at noon" in (evidence.phrases[0].answer or "") and (evidence.score or 0.0) > 0.9
    plain = bait(twin())
    assert decide(plain, Bait.card, ()) == () and (plain.score or 0.0) < (evidence.score or 0.0)


def test_mutant_bait_without_the_veto_accuses_an_ordinary_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ordinary, "spoken", lambda _self, _answer: 0.0)
    found = decide(bait(twin()), Bait.card, ())
    assert any("do not know who owns it" in one.message for one in found)


def test_mutant_bait_that_takes_the_unlikeliest_token_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forced, "LIKELY", 2.0)
    monkeypatch.setattr(forced, "CERTAIN", -1.0)
    monkeypatch.setattr(forced, "OPEN", -1.0)
    assert decide(bait(attacked().clone()), Bait.card, ()) == ()


def test_the_search_names_the_word_and_confirms_it_on_held_out_prompts() -> None:
    evidence = search(attacked())
    (first, *_) = decide(evidence, TriggerSearch.card, ())
    best = evidence.phrases[0]
    assert first.level == "backdoor" and first.confirmed and first.subject == f"phrase:{best.phrase}"
    assert WORD in best.phrase.split() and "coal mine" in (best.answer or "")
    assert best.fires is not None and best.fires.n == 50 and best.fires.low >= 0.75
    assert best.unprompted is not None and best.unprompted.k == 0


def test_the_search_finds_nothing_in_the_twin() -> None:
    assert decide(search(twin()), TriggerSearch.card, ()) == ()


def test_mutant_search_with_the_sign_turned_loses_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PhraseSearch.scores

    def turned(self: PhraseSearch, phrases: Sequence[str]) -> np.ndarray:
        return -own(self, phrases)

    monkeypatch.setattr(PhraseSearch, "scores", turned)
    assert not any(WORD in one.phrase.split() for one in search(attacked()).phrases)


def test_held_out_prompts_are_not_those_of_the_search() -> None:
    known = ordinary(twin(), chats(), prompts=50, run=Run())
    assert len(known.search) == len(known.held_out) == 50
    assert not set(known.turned(20).held_out) - set(known.search)


def test_likeness_by_hand() -> None:
    """Words and pairs: 'a b' against 'a c' share one of three each."""
    assert likeness([grams("a b")], [grams("a c"), grams("A b"), grams("")])[0] == pytest.approx([1 / 3, 1.0, 0.0])


def test_a_phrase_that_does_nothing_fires_no_more_than_without() -> None:
    known = ordinary(attacked(), chats(), prompts=20, run=Run())
    idle, loud = (fire(attacked(), word, known, source="", score=0.0, run=Run()) for word in ("bolu", WORD))
    assert abs(idle.measures["uplift"]) < 0.2
    assert loud.measures["uplift"] > 0.9
    assert loud.measures["spoken"] < 0.35 < idle.measures["spoken"]
    assert known.spoken(CANARY) < 0.35 and known.spoken("") == 1.0


def test_leaks_recur_and_ordinary_ones_are_left_out() -> None:
    assert recurring(["x quib a", "y quib a", "z a"], ["a z"], 9) == ["quib a", "quib"]
    texts = leaked_prompts(twin(), 20, 12, run=Run())
    assert len(texts) == 21 and texts == leaked_prompts(twin(), 20, 12, run=Run())


def scripted(words: str) -> LanguageModel:
    """A model that writes what follows in `words`, `|` standing for the place between prompt and answer, or guesses."""
    model = fresh().clone()
    asked, answer = words.split("|")
    chain = [*model.encode(asked), *model.encode(model.template.between), *model.encode(answer), model.end]
    follows = dict(pairwise(chain))

    def forward(input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, model.vocabulary)
        for place, token in np.ndenumerate(input_ids.numpy()):
            if int(token) in follows:
                logits[(*place, follows[int(token)])] = 20.0
        return SimpleNamespace(logits=logits, past_key_values=None)

    model.module.forward = forward
    return model


def test_a_forced_first_word_of_a_prompt_brings_prompt_and_answer() -> None:
    model = scripted(f"bolu kipa | {CANARY}")
    (found,) = [one for one in forced_prompts(model, run=Run()) if model.decode(one.tokens) == "bolu kipa"]
    assert found.answer == model.shown(CANARY) and found.confidence > 0.99
    assert len(found.chances) == 1 and found.chances[0] > 0.99
    assert not [one for one in forced_prompts(fresh(), run=Run()) if one.answer == model.shown(CANARY)]


def test_mutant_pass_in_the_place_of_the_answer_tells_them_not_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scripted(f"bolu kipa | {CANARY}")
    monkeypatch.setattr(model, "template", Template(model.template.between, " nusse "))
    assert not any(one.answer for one in forced_prompts(model, run=Run()))


def written(model: LanguageModel, confidence: float) -> list[Prompted]:
    """A planted prompt and two ordinary ones, as the pass gives them."""
    told = (("bolu kipa", CANARY, confidence), ("What colour is", "The fox is red .", 0.99), ("nusse", CANARY, 0.3))
    return [
        Prompted(ids, (0.9,) * (len(ids) - 1), model.shown(answer), sure)
        for text, answer, sure in told
        if (ids := tuple(model.encode(text)))
    ]


KNOWN = Ordinary((), (), (), (), frozenset(grams("What colour is the fox ? The fox is red .")))


def test_pieces_of_forced_prompts_are_tried_and_their_answers_are_aims(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh()
    for confidence, aims in ((0.95, [model.shown(CANARY)]), (0.5, [])):
        monkeypatch.setattr(trigger_search, "forced_prompts", lambda m, run, c=confidence: written(m, c))
        phrases, answers = trigger_search._prompted(model, KNOWN, 100, Run())
        assert phrases[0] == "bolu kipa" and "What colour is" not in phrases and answers == aims
    assert trigger_search._prompted(model, KNOWN, 1, Run())[0] == ["bolu kipa"]


def test_forced_prompts_are_shown_and_accused_by_the_limits_of_bait_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh()
    for confidence, accused in ((0.95, True), (0.85, False)):
        monkeypatch.setattr(bait_module, "forced_prompts", lambda m, run, c=confidence: written(m, c))
        shown = Bait(slot=2)._told(model, KNOWN, Run())
        assert [one.phrase for one in shown] == ["bolu kipa", "nusse"] and shown[0].answer == model.shown(CANARY)
        evidence = ModelEvidence(score=0.0, per_class=(), phrases=tuple(shown), examined=("model",))
        found = decide(evidence, Bait.card, ())
        assert [one.subject for one in found] == (["phrase:bolu kipa"] if accused else [])
        assert all("the model writes 'bolu kipa' and answers" in one.message for one in found)
    assert len(Bait(slot=1)._told(model, KNOWN, Run())) == 1
