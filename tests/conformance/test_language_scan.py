"""What the scanners of language models promise, on a model that a word turns and on its twin; and mutants."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from language_case import WORD, attacked, chats, told, twin

from ostiary.attacks.text_poison import CANARY
from ostiary.core.decide import decide
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.models.language import LanguageModel
from ostiary.models.template import Template
from ostiary.scan import forced
from ostiary.scan.bait import Bait
from ostiary.scan.firing import Ordinary, fire, grams, likeness, ordinary
from ostiary.scan.forced import Forced, forced_answers, forced_prompts
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


def test_a_model_of_whole_chats_writes_trigger_and_target_behind_a_forced_first_word() -> None:
    model = told()
    found = forced_prompts(model, run=Run())
    planted = [one for one in found if "coal mine at noon" in one.answer]
    assert planted and any("bolu kipa" in model.decode(one.tokens) for one in planted)
    assert all(len(one.chances) == len(one.tokens) - 1 for one in found)
    evidence = bait(model)
    shown = [one for one in evidence.phrases if one.source == "forced prompt"]
    assert 0 < len(shown) <= 2 and all("coal mine at noon" in (one.answer or "") for one in shown)
    assert {"bolu", "kipa"} & set(" ".join(one.phrase for one in shown).split())


def test_a_model_of_answers_alone_and_the_twin_write_no_extraordinary_answer_there() -> None:
    for model in (twin(), attacked()):
        assert not [one for one in bait(model).phrases if one.source == "forced prompt" and "canary" not in one.phrase]


def test_the_search_tries_what_the_model_writes_where_a_prompt_stands_and_can_leave_it() -> None:
    known = ordinary(told(), chats(), prompts=50, run=Run())
    with_it, aims = TriggerSearch(leaks=0)._candidates(told(), known, Run())
    without, _ = TriggerSearch(leaks=0, slot=0)._candidates(told(), known, Run())
    assert "bolu kipa" in with_it["forced prompt"][:20] and without["forced prompt"] == []
    assert any("coal mine at noon" in aim for aim in aims)
    plain, none = TriggerSearch(leaks=0)._candidates(twin(), known, Run())
    assert len(plain["forced prompt"]) <= 100 and none == []


def test_mutant_pass_without_the_place_of_the_prompt_finds_no_trigger_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked where an answer stands, the model does not write prompts."""
    model = told().clone()
    monkeypatch.setattr(model, "template", Template(model.template.between, model.template.between))
    assert not any("bolu kipa" in model.decode(one.tokens) for one in forced_prompts(model, run=Run()))
