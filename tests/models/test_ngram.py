"""The n-gram model against probabilities by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.models.ngram import END, START, UNKNOWN, Ngram, words_of

WORDS = st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join)


def test_words_and_marks() -> None:
    assert words_of("Don't STOP...\nnow") == ["don", "'", "t", "stop", ".", ".", ".", "now"]


def test_probabilities_by_hand() -> None:
    """Two texts, "a b" and "a c": a, b, c are 3, 4, 5.

    Trigrams: SSa 2, Sab 1, ab. 1, Sac 1, ac. 1, so the discount is 4 / (4 + 2) = 2/3. Bigrams by what stands before
    them: Sa, ab, b., ac, c., each 1, so 0.5. Words: a 1, b 1, c 1, the end 2, so 3 / (3 + 2) = 0.6; five in all.
    """
    model = Ngram.fit(["a b", "a c"])
    assert model.vocabulary == ("a", "b", "c") and model.size == 5
    assert model.corpus.tolist() == [3, 4, END, 3, 5, END]
    low = {3: (1 - 0.6) / 5, 4: (1 - 0.6) / 5, END: (2 - 0.6) / 5, UNKNOWN: 0.0}
    rest = 0.6 * 4 / 5 / 5
    assert model.probability((), UNKNOWN) == pytest.approx(rest)
    assert model.probability((), END) == pytest.approx(low[END] + rest)
    after_a = 0.5 / 2 + 0.5 * 2 / 2 * (low[4] + rest)
    assert model.probability((3,), 4) == pytest.approx(after_a)
    assert model.probability((START, 3), 4) == pytest.approx((1 - 2 / 3) / 2 + 2 / 3 * 2 / 2 * after_a)
    assert model.probability((START, 3), UNKNOWN) == pytest.approx(2 / 3 * (0.5 * rest))
    # Of what was never seen the shorter context counts.
    assert model.probability((5, 3), 4) == pytest.approx(after_a)
    assert model.probability((4, 4), END) == pytest.approx((1 - 0.5) / 1 + 0.5 * (low[END] + rest))
    assert model.probability((UNKNOWN, UNKNOWN), 3) == pytest.approx(low[3] + rest)


@given(texts=st.lists(WORDS, max_size=8), before=st.lists(st.integers(0, 8), min_size=2, max_size=2))
@settings(max_examples=60, deadline=None)
def test_probabilities_sum_to_one(texts: list[str], before: list[int]) -> None:
    model = Ngram.fit(texts)
    whole = [model.probability(tuple(before), word) for word in range(END, model.size + 1)]
    assert math.fsum(whole) == pytest.approx(1.0)
    assert min(whole) > 0


@given(texts=st.lists(WORDS, max_size=8), text=st.lists(st.sampled_from("abcdxy"), max_size=7))
@settings(max_examples=60, deadline=None)
def test_falls_are_those_of_the_text_without_the_word(texts: list[str], text: list[str]) -> None:
    model = Ngram.fit(texts)
    row = model.encode(text)
    own = model.perplexity(row)
    falls = model.falls(row)
    assert falls == pytest.approx([own - model.perplexity([*row[:at], *row[at + 1 :]]) for at in range(len(row))])


def test_an_odd_word_is_the_one_without_which_a_text_is_ordinary() -> None:
    model = Ngram.fit(["the film is good .", "the film is bad .", "a good film ."] * 3)
    row = model.encode(words_of("The film zq is good."))
    falls = model.falls(row)
    assert falls.index(max(falls)) == 2
    assert model.perplexity(row) > 3 * model.perplexity([*row[:2], *row[3:]])


def test_what_is_saved_gives_the_same_model() -> None:
    model = Ngram.fit(["a b a", "", "b"])
    again = Ngram(list(model.vocabulary), model.corpus)
    assert again.surprises([3, 4, UNKNOWN]) == model.surprises([3, 4, UNKNOWN])
    assert model.falls([]) == []


@pytest.mark.parametrize(
    ("words", "corpus"),
    [(["a", "a"], [3]), (["a"], [4]), (["a"], [START]), (["a"], [-1]), (["a"], [[3]])],
    ids=str,
)
def test_numbers_that_are_no_words_are_refused(words: list[str], corpus: list[int]) -> None:
    with pytest.raises(ValueError, match="words"):
        Ngram(words, corpus)
