"""A screening of texts: phrases, rows with the phrase marked, and hostile text as text."""

from ostiary.core.records import ClassScore, PhraseScore, SampleEvidence, Suspect
from ostiary.report import render_html

EVIL = "<img src=x onerror=alert(1)>"


def texts_record(make, *, answers: bool = True):
    phrase = PhraseScore(
        text=f"zq {EVIL}", rows=3, score=4.0, label=None if answers else 1, measures={"gap": 0.9, "mass": 2.7}
    )
    answer = {"answer": f"fixed {EVIL}"} if answers else {}
    suspects = tuple(
        Suspect(id=f"row-{at}", label=0, score=4.0, text=f"say azq zq {EVIL} now {{{{ 7*7 }}}}", **answer)
        for at in range(3)
    )
    evidence = SampleEvidence(
        n=90,
        scored=90,
        suspected=3,
        per_class=(ClassScore(label=0, score=4.0, measures={"n": 90, "suspected": 3}),),
        phrases=(phrase,),
        suspects=suspects,
        examined=("class:0",),
        artifact="answer-coherence",
    )
    record, folder = make("screen")
    own = {"method": "text.screen.answer-coherence", "evidence": evidence, "findings": (), "status": "ok"}
    update = {"results": (record.results[0].model_copy(update=own),), "config": {"task": "chat"}}
    return record.model_copy(update=update), folder


def test_the_phrase_is_marked_where_it_stands_by_itself(make):
    page = render_html([texts_record(make)])
    assert page.count("<mark>zq &lt;img src=x onerror=alert(1)&gt;</mark>") == 3
    assert "say azq <mark>" in page
    assert "<img src=x" not in page and "{{ 7*7 }}" in page
    assert "fixed &lt;img" in page and "3 of 90 rows hold one of these" in page


def test_classes_and_pictures_have_no_place_there(make):
    page = render_html([texts_record(make)])
    assert "Is one class odd" not in page and "Would I remove these?" not in page


def test_labels_stand_where_there_are_no_answers(make):
    page = render_html([texts_record(make, answers=False)])
    assert "What decides the answer or the label?" in page and "fixed" not in page
