"""A language model behind an endpoint: what it is sent, what is taken from it, and what is refused."""

import time
from typing import Any

import pytest
import torch
from http_case import Server, serving

from ostiary.core.errors import ConfigError, EndpointError
from ostiary.models.chat_endpoint import LONGEST, PATH, ChatEndpoint, is_chat_url

MODELS = {"object": "list", "data": [{"id": "tiny"}]}


def said(text: Any, tokens: Any = 7) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": tokens}}


def talking(answer: Any = "Fine, thank you.", models: Any = MODELS) -> Server:
    return Server(lambda body: (200, models if body is None else said(answer)))


def quick(url: str, served: str | None = "tiny", **how: Any) -> ChatEndpoint:
    return ChatEndpoint(f"{url}/v1{PATH}", served, **{"wait": 0.0, "tries": 2, **how})


def test_prompts_go_out_as_chats_and_answers_come_back() -> None:
    server = talking()
    with serving(server) as url:
        box = quick(url, None)
        assert server.seen == [], "nothing is sent before the first question"
        assert box.answers(["How are you?", "And now?"], 12) == ["Fine , thank you ."] * 2
        assert box.served == "tiny" and box.rows == 2 and box.tokens == 14
        assert [one[:2] for one in server.seen] == [
            ("GET", "/v1/models"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/chat/completions"),
        ]
        body = server.seen[1][3]
        assert body["model"] == "tiny" and body["max_tokens"] == 12 and body["temperature"] == 0.0
        assert body["messages"] == [{"role": "user", "content": "How are you?"}]
        drawn = [box.drawn("Go on.", 5, 3, torch.Generator().manual_seed(seed)) for seed in (0, 0)]
        assert drawn[0] == ["Fine , thank you ."] * 3
        sent = [one[3] for one in server.seen[-6:]]
        assert {one["temperature"] for one in sent} == {1.0}
        assert [one["seed"] for one in sent[:3]] == [one["seed"] for one in sent[3:]]
        assert len({one["seed"] for one in sent}) == 3
        digest = quick(url).digest
    with serving(talking("Something else")) as url:
        assert quick(url).digest != digest


def test_the_name_of_the_model_is_asked_for_where_there_is_one() -> None:
    two = {"data": [{"id": "a"}, {"id": "b"}]}
    with serving(talking(models=two)) as url:
        assert quick(url, "b").answers(["x"], 4) == ["Fine , thank you ."]
        with pytest.raises(ConfigError, match="serves 2 models") as caught:
            quick(url, None).answers(["x"], 4)
        assert "--served" in str(caught.value.hint)
    for told in ({}, [], {"data": [1]}):
        with serving(talking(models=told)) as url, pytest.raises(EndpointError, match="no list of its models"):
            _ = quick(url, None).served
    for name in ("a" * 201, "tiny\x1b[31m", "tiny\ud800"):
        with serving(talking(models={"data": [{"id": name}]})) as url, pytest.raises(EndpointError, match="a name of"):
            _ = quick(url, None).served


def test_the_secret_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_ENDPOINT_AUTH", "Bearer hush")
    server = talking()
    with serving(server) as url:
        box = quick(url)
        box.answers(["x"], 4)
    assert server.seen[0][2]["Authorization"] == "Bearer hush" and "hush" not in box.name


def test_an_empty_answer_is_an_answer_and_a_long_one_is_cut() -> None:
    with serving(talking(None)) as url:
        assert quick(url).answers(["x"], 4) == [""]
    with serving(talking("one \ud800 two \udc00\ud83d")) as url:
        assert quick(url).answers(["x"], 4)[0].encode() == b"one ? two ? ?"
    with serving(talking("a" * 100_000)) as url:
        assert quick(url).answers(["x"], 4) == ["a" * 4 * LONGEST]


@pytest.mark.parametrize("tokens", [None, "7", -1, 10**12, 1.5, True])
def test_a_count_that_is_none_counts_nothing(tokens: Any) -> None:
    with serving(Server((200, said("ok", tokens)))) as url:
        box = quick(url)
        assert box.answers(["x"], 4) == ["ok"] and box.tokens == 0


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((500, {"error": "down"}), "after 2 tries: HTTP 500"),
        ((200, b'{"choices": [{"mess'), "did not answer in JSON"),
        ((200, b"<html>busy\x1b[31m</html>"), "did not answer in JSON"),
        ((200, {"choices": []}), "without the text of a first choice"),
        ((200, {"error": {"message": "no"}}), "without the text of a first choice"),
        ((200, []), "without the text of a first choice"),
        ((200, {"choices": [{"message": {"content": 7}}]}), "that is no text"),
        ((200, {"choices": [{"message": {"content": ["a"]}}]}), "that is no text"),
        ((404, {"error": "no such model"}), "refused with HTTP 404"),
        ((200, said("x" * 5000)), "larger than 4,096 bytes"),
        ((307, {}, {"Location": "http://127.0.0.1:9/x"}), "redirects to"),
    ],
)
def test_answers_of_no_use_are_told(reply: Any, told: str) -> None:
    with serving(Server(reply)) as url, pytest.raises(EndpointError, match=told) as caught:
        quick(url, largest=4096).answers(["x"], 4)
    assert caught.value.hint and "\x1b" not in str(caught.value)


def test_a_passing_trouble_passes() -> None:
    server = Server((503, {}), (200, said("there")))
    with serving(server) as url:
        box = quick(url)
        assert box.answers(["x"], 4) == ["there"] and box.rows == 1 and len(server.seen) == 2


def test_a_body_without_end_ends() -> None:
    """More is announced than comes, and comes for ever: neither size nor time is without limit."""
    endless = (200, b"[" * 2**16, {"Content-Length": str(2**40)})
    begun = time.monotonic()
    with serving(Server(endless)) as url, pytest.raises(EndpointError, match=r"larger than|broke off|took longer"):
        quick(url, largest=2**15, timeout=2.0).answers(["x"], 4)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("url", "whether"),
    [
        ("http://localhost:8000/v1/chat/completions", True),
        ("https://host/openai/v1/chat/completions?api-version=1", True),
        ("https://host/predict", False),
        ("https://host/predict?next=/chat/completions", False),
        ("chat/completions", False),
        ("https://[bad/chat/completions", False),
    ],
)
def test_a_url_of_chats_is_told_by_its_path(url: str, whether: bool) -> None:
    assert is_chat_url(url) is whether
    if not whether:
        with pytest.raises(ConfigError, match="ends in /chat/completions"):
            ChatEndpoint(url)
