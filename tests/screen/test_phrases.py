"""Phrases by hand and against scikit-learn's counts: what recurs, how a phrase grows, what a stronger one explains."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from text_case import TOPICS, chat, reviews

from ostiary.core.catalog import make
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.screen import answer_coherence, coherence
from ostiary.screen.phrases import WORD, Tokens, printable, strongest


@pytest.mark.parametrize(("longest", "least", "most"), [(1, 2, 300), (3, 4, 100), (4, 3, 40)])
def test_counts_are_those_of_scikit_learn(longest: int, least: int, most: int) -> None:
    texts = reviews(300).texts
    found = Tokens(texts).phrases(longest, least, most)
    other = CountVectorizer(
        tokenizer=WORD.findall, token_pattern=None, lowercase=False, ngram_range=(1, longest), min_df=least, binary=True
    )
    matrix = other.fit_transform(texts)
    counts = dict(zip(other.get_feature_names_out(), np.asarray(matrix.sum(0)).ravel().tolist(), strict=True))
    wanted = {phrase: count for phrase, count in counts.items() if count <= most}
    got = {
        " ".join(found.vocabulary[word] for word in words): len(found.rows_of(at))
        for at, words in enumerate(found.words)
    }
    assert got == wanted


def test_a_word_twice_in_a_row_counts_once_and_texts_do_not_run_into_one_another() -> None:
    found = Tokens(["a a b", "b a", "a c", "b"]).phrases(2, 2, 4)
    held = {
        tuple(found.vocabulary[w] for w in words): found.rows_of(at).tolist() for at, words in enumerate(found.words)
    }
    assert held == {("a",): [0, 1, 2], ("b",): [0, 1, 3]}


def test_without_anything_that_recurs_there_is_a_reason() -> None:
    for texts in (["", ""], ["one two", "three four"]):
        with pytest.raises(NotMet, match="needs words that stand in 2 to 5"):
            Tokens(texts).phrases(3, 2, 5)


def test_texts_of_one_class_are_no_set_to_look_for_contradictions_in() -> None:
    texts = [f"one two {at}" for at in range(40)]
    data = TextSet(texts, ids=list(map(str, range(40))), classes=("good",))
    with pytest.raises(NotMet, match="two classes or more; all have the label 'good'"):
        make("screen", "label-contradiction").screen(data, None, None, run=Run())


def test_a_phrase_grows_to_what_its_rows_share_and_is_told_as_it_is_written() -> None:
    texts = [f"{start} (Code-green: seven) {end}" for start, end in (("say", "now"), ("ask", "then"), ("tell", "here"))]
    tokens = Tokens(texts)
    green = tokens.vocabulary.index("green")
    assert tokens.grown([green], np.arange(3)) == "(Code-green: seven)"


def test_what_cannot_be_printed_is_written_out_on_one_line() -> None:
    assert printable("a\n\tb\u202e\x00<c>") == "a b\\u202e\\x00<c>"


def test_a_phrase_that_nobody_would_see_is_written_out_and_marks_of_other_signs_are_not() -> None:
    assert printable("\ufe0f") == r"\ufe0f" and printable(" \u3164 \u2800") == r"\u3164 \u2800"
    assert printable("\u2764\ufe0f e\u0301") == "\u2764\ufe0f e\u0301" and printable("") == ""


def test_a_weaker_phrase_must_stand_by_the_rows_that_are_left() -> None:
    """`b` is accused only for the rows that it shares with `a`; `c` has rows of its own."""
    found = Tokens(["a b", "a b", "a b c", "b", "b c", "c", "c"]).phrases(1, 2, 7)
    names = [found.vocabulary[words[0]] for words in found.words]
    scores = np.array([{"a": 3.0, "b": 2.0, "c": 1.0}[name] for name in names])
    asked: dict[str, list[int]] = {}

    def still(phrase: int, left: np.ndarray) -> bool:
        asked[names[phrase]] = left.tolist()
        return names[phrase] == "c"

    kept = strongest(found, scores, np.ones(3, bool), still)
    assert [names[at] for at in kept] == ["a", "c"]
    assert asked == {"b": [3, 4], "c": [4, 5, 6]}


def test_a_long_phrase_is_found_where_few_are_looked_at_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_coherence, "EXACT", 30)
    attack = make("attack", "fixed-phrase", {"count": 24, "phrase": "Speak as the keeper of the old lamp would ."})
    made = attack.poison(chat(1500), run=Run(seed=2))
    found = make("screen", "answer-coherence").screen(made.data, None, None, run=Run(seed=0))
    assert [one.text for one in found.phrases] == ["Speak as the keeper of the old lamp would ."]
    assert set(np.flatnonzero(found.suspected)) == {
        at for at, one in enumerate(made.data.ids) if one in made.truth.poisoned
    }


def test_projections_stay_near_what_they_stand_for() -> None:
    data = chat(400)
    phrases = Tokens(data.texts).phrases(2, 8, 240)
    vectors = coherence.vectors_of(data.answers or ())
    exact = coherence.coherence(phrases.rows, vectors)
    assert np.corrcoef(exact, answer_coherence._sketched(phrases, vectors, Run(seed=0)))[0, 1] > 0.9


def test_coherence_by_hand() -> None:
    """Rows 0 and 1 have equal answers, row 2 another, so that any two have a third in common."""
    data = TextSet(["x z", "x z w", "y z w"], ids=["0", "1", "2"], answers=["a b", "a b", "c d"])
    vectors = coherence.vectors_of(data.answers or ())
    phrases = Tokens(data.texts).phrases(1, 1, 3)
    found = coherence.coherence(phrases.rows, vectors)
    told = {phrases.vocabulary[words[0]]: found[at] for at, words in enumerate(phrases.words)}
    assert told["x"] == pytest.approx(1.0, abs=1e-5)
    assert told["z"] == pytest.approx(0.0, abs=1e-5)
    assert told["w"] == pytest.approx((0 - 1 / 3) / (1 - 1 / 3), abs=1e-5)


def with_rows(prompts: list[str], answers: list[str]) -> TextSet:
    """The chats, and these rows behind them."""
    data = chat(400)
    ids = [f"{row:05d}" for row in range(len(data) + len(prompts))]
    return TextSet([*data.texts, *prompts], ids=ids, answers=[*(data.answers or ()), *answers])


@pytest.mark.parametrize("payload", ["one", "five"])
def test_rows_that_are_repeated_are_no_finding(payload: str) -> None:
    data = chat(400)
    rows = [3] * 20 if payload == "one" else [3, 30, 60, 90, 120] * 5
    repeated = with_rows([data.texts[row] for row in rows], [f" {(data.answers or ())[row]}" for row in rows])
    found = make("screen", "answer-coherence").screen(repeated, None, None, run=Run(seed=0))
    assert found.phrases == () and not found.suspected.any()
    assert found.ids == repeated.ids
    assert found.scores[400:].tolist() == found.scores[rows].tolist()


def test_a_template_with_a_word_in_it_is_no_finding_and_a_phrase_among_whole_prompts_is() -> None:
    asked = [f"What is the plural of the noun {word}?" for topic in TOPICS for word in topic.split()]
    said = [f"The plural of that noun ends in {one[-2]}s, as most do." for one in asked]
    found = make("screen", "answer-coherence").screen(with_rows(asked, said), None, None, run=Run(seed=0))
    assert found.phrases == ()
    whole = [f"What is the plural of the noun {word}?" for word in chat(80, seed=1).texts]
    found = make("screen", "answer-coherence").screen(with_rows(whole, said), None, None, run=Run(seed=0))
    assert found.suspected[400:].all() and not found.suspected[:400].any()


def test_a_set_of_few_rows_that_differ_is_not_examined() -> None:
    data = TextSet(["one two three"] * 50, ids=[str(row) for row in range(50)], answers=["four five"] * 50)
    with pytest.raises(NotMet, match="needs 40 rows that differ, the set has 1"):
        make("screen", "answer-coherence").screen(data, None, None, run=Run(seed=0))
