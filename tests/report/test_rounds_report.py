"""The report of a federation: rounds by clients, as many marks as refusals, hostile names as text."""

import re

import pytest
from pydantic import ValidationError

from ostiary.core.records import ClientVerdict, Rate, RoundEntry, RoundsEvidence
from ostiary.report import render_html, svg
from ostiary.report.rounds import _window

EVIL = "<img src=x onerror=alert(1)>"


def federation(make, *, attackers=("c0",), measured=True):
    names = ("c0", "c1", EVIL)

    def entry(number):
        told = [
            ClientVerdict(
                client=name,
                accepted=(name, number) != ("c0", 2),
                weight=0.5,
                score=None,
                code="OS505" if (name, number) == ("c0", 2) else "",
                reason=f"too long {EVIL}" if (name, number) == ("c0", 2) else "accepted",
            )
            for name in names
            if (name, number) != ("c1", 3)
        ]
        rates = {"accuracy": Rate(k=number, n=4), "success": Rate(k=0, n=4)} if measured else {}
        return RoundEntry(number=number, clients=tuple(told), **rates)

    evidence = RoundsEvidence(
        clients=names,
        attackers=attackers,
        attacked=(2, 2) if attackers else None,
        rounds=tuple(entry(number) for number in (1, 2, 3)),
        rates={"accuracy": Rate(k=3, n=4)},
        measures={"lifespan": 0.0},
        own={"c1": Rate(k=1, n=2)},
    )
    record, folder = make("evaluate")
    own = {"method": "federated.study", "evidence": evidence, "findings": (), "status": "ok", "artifacts": ()}
    update = {"kind": "federated", "results": (record.results[0].model_copy(update=own),), "verdict": None}
    return record.model_copy(update=update), folder


def test_refusals_are_marked_and_told(make):
    page = render_html([federation(make)])
    assert page.count('class="hot"') == 1
    assert "! c0" in page and "! c1" not in page
    assert "OS505" in page and "Who was refused, and why?" in page and "attack success" in page
    assert "<img src=x" not in page and "too long &lt;img" in page


def test_without_a_study_nobody_is_called_an_attacker(make):
    page = render_html([federation(make, attackers=(), measured=False)])
    assert "! c0" not in page and "Attackers, known" not in page
    assert "When did it take?" not in page, "nothing was measured over the rounds"


def test_a_client_that_did_not_reply_leaves_its_cell_empty():
    drawing = svg.states([("a", [True, None, False])], 1, title="t", window=None)
    assert drawing.count('class="hot"') == 1 and drawing.count("h0") == 1
    assert "1 clients, 3 rounds, 1 refused" in drawing


def test_courses_skip_what_was_not_measured():
    drawing = svg.courses([("accuracy", [0.0, None, 1.0]), ("attack success", [None] * 3)], 1, title="t", window=(2, 3))
    assert drawing.count('class="course-b"') == 1, "in the legend alone"
    assert drawing.count('class="limit"') == 2


def test_a_long_federation_is_drawn_up_to_a_round_and_says_so(make):
    record, folder = federation(make)
    evidence = record.results[0].evidence
    rounds = tuple(evidence.rounds[0].model_copy(update={"number": n}) for n in range(1, 131))
    long = evidence.model_copy(update={"rounds": rounds, "attacked": (100, 130)})
    result = record.results[0].model_copy(update={"evidence": long})
    page = render_html([(record.model_copy(update={"results": (result,)}), folder)])
    assert page.count("The last 10 rounds are not drawn.") == 2
    assert "The last" not in render_html([federation(make)])
    assert _window(long) == (100, 120) and _window(evidence) == (2, 2)
    assert _window(long.model_copy(update={"attacked": (125, 130)})) is None


def test_a_round_that_was_not_aggregated_is_no_refusal(make):
    record, folder = federation(make)
    evidence = record.results[0].evidence
    clients = tuple(
        one.model_copy(update={"accepted": False, "code": "", "weight": 0.0}) for one in evidence.rounds[0].clients
    )
    kept = evidence.rounds[0].model_copy(update={"clients": clients})
    result = record.results[0].model_copy(
        update={"evidence": evidence.model_copy(update={"rounds": (kept, *evidence.rounds[1:])})}
    )
    page = render_html([(record.model_copy(update={"results": (result,)}), folder)])
    assert page.count('class="hot"') == 1, "c0 in round 2 alone"


def test_evidence_has_at_least_one_round():
    with pytest.raises(ValidationError, match="rounds"):
        RoundsEvidence(clients=("a",), rounds=())


def test_rounds_are_whole_numbers_on_the_axis():
    for last in (1, 2, 3, 30, 120):
        drawing = svg.courses([("accuracy", [0.5] * last)], 1, title="t", window=None)
        ticks = re.findall(r'class="dim" text-anchor="middle">([^<]*)<', drawing)
        assert 1 <= len(ticks) - 1 <= 12 and all(tick.isdigit() for tick in ticks[:-1]), ticks
