"""An endpoint over HTTP: its protocols, its patience and its limits."""

import base64
import time
from typing import Any

import numpy as np
import pytest
import torch
from http_case import Reply, Server, serving

from ostiary.core.errors import ConfigError, EndpointError
from ostiary.core.protocols import Predictor
from ostiary.core.session import Options
from ostiary.data import digits
from ostiary.inputs import open_predictor
from ostiary.models.endpoint import Endpoint, url_shape
from ostiary.models.http import Client, is_url, shown_url

SHAPE = (1, 2, 2)


def pixels(body: dict[str, Any]) -> np.ndarray:
    sent = body["images"]
    assert sent["dtype"] == "float32"
    return np.frombuffer(base64.b64decode(sent["data"]), "<f4").reshape(sent["shape"])


def share(x: np.ndarray) -> list[list[float]]:
    bright = x.reshape(len(x), -1).mean(1)
    return np.stack([1 - bright, bright], 1).tolist()


def good(body: Any) -> Reply:
    return 200, {"probabilities": share(pixels(body))}


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def expected(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(share(x.numpy()))


def quick(url: str, **how: Any) -> Endpoint:
    return Endpoint(url, input_shape=SHAPE, wait=0.0, **how)


def test_images_go_out_and_probabilities_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = Server(good)
    with serving(server) as url:
        box = quick(f"{url}/predict?key=secret", batch=2)
        assert isinstance(box, Predictor) and box.access == "probabilities" and box.classes == ("0", "1")
        torch.testing.assert_close(box.predict(images()), expected(images()))
        assert box.name == f"{url}/predict" and box.queries == 4 + 3
        assert [len(pixels(body)) for *_, body in server.seen] == [4, 2, 1]
        assert server.seen[0][:2] == ("POST", "/predict?key=secret")
        assert quick(f"{url}/predict").digest == box.digest


def test_logits_and_labels_are_taken() -> None:
    with serving(Server(lambda body: (200, {"logits": np.log(share(pixels(body))).tolist()}))) as url:
        torch.testing.assert_close(quick(url).predict(images()), expected(images()))
    with serving(Server(lambda body: (200, {"labels": np.argmax(share(pixels(body)), 1).tolist()}))) as url:
        box = quick(url, classes=2)
        assert box.access == "labels"
        assert torch.equal(box.predict(images()).argmax(1), expected(images()).argmax(1))
        with pytest.raises(EndpointError, match="how many classes"):
            quick(url)


@pytest.mark.parametrize("form", ["logits", "probabilities", "labels"])
def test_the_open_inference_protocol_is_spoken(form: str) -> None:
    def infer(body: Any) -> Reply:
        if body is None:
            return 200, {"name": "m", "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, *SHAPE]}]}
        (sent,) = body["inputs"]
        assert sent["name"] == "pixels" and sent["datatype"] == "FP32" and len(sent["data"]) == np.prod(sent["shape"])
        found = np.array(share(np.array(sent["data"]).reshape(sent["shape"])))
        found = {"logits": np.log(found) - 1, "probabilities": found, "labels": found.argmax(1)}[form]
        return 200, {"outputs": [{"name": "o", "shape": list(found.shape), "data": found.flatten().tolist()}]}

    server = Server(infer)
    with serving(server) as url:
        box = quick(f"{url}/v2/models/m/infer", classes=2)
        assert torch.equal(box.predict(images()).argmax(1), expected(images()).argmax(1))
        if form != "labels":
            torch.testing.assert_close(box.predict(images()), expected(images()))
    assert [seen[:2] for seen in server.seen[:2]] == [("GET", "/v2/models/m"), ("POST", "/v2/models/m/infer")]


def test_a_url_is_opened_with_the_shape_of_the_trusted_images() -> None:
    with serving(Server(good)) as url:
        box = open_predictor(url, Options(), digits("test"))
        assert isinstance(box, Endpoint) and box.input_shape == (3, 32, 32)


def test_passing_troubles_are_waited_for() -> None:
    server = Server((429, {}, {"Retry-After": "7"}), (503, {}), (200, b'{"probabil', {"Content-Length": "99"}), good)
    waits: list[float] = []
    with serving(server) as url:
        box = Endpoint(url, input_shape=SHAPE, wait=0.5, sleep=waits.append)
        assert box.queries == 4 and waits == [7.0, 1.0, 2.0]


def test_patience_ends() -> None:
    with serving(Server((503, {}))) as url, pytest.raises(EndpointError, match="after 3 tries: HTTP 503") as caught:
        quick(url, tries=3)
    assert caught.value.hint
    with pytest.raises(EndpointError, match=r"after 2 tries: .*refused"):
        quick(url, tries=2)


def test_a_slow_answer_is_not_waited_for() -> None:
    def slow(body: Any) -> Reply:
        time.sleep(0.6)
        return good(body)

    with serving(Server(slow)) as url, pytest.raises(EndpointError, match="tries: "):
        quick(url, tries=1, timeout=0.1)


def test_the_secret_is_sent_to_its_host_alone_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSTIARY_ENDPOINT_AUTH", "Bearer hush")
    there = Server(good)
    with serving(there) as elsewhere:
        here = Server(good, (307, {}, {"Location": f"{elsewhere}/x?token=1"}))
        with serving(here) as url:
            box = quick(url)
            assert here.seen[0][2]["Authorization"] == "Bearer hush"
            with pytest.raises(EndpointError, match=r"redirects to .* not followed") as caught:
                box.predict(images())
    assert there.seen == []
    for text in (repr(box.client), str(caught.value), box.name, *capfd.readouterr()):
        assert "hush" not in text and "token" not in text
    with pytest.raises(ConfigError, match="unencrypted to"):
        Client(url="http://models.example.org/", authorization="Bearer hush")
    with pytest.raises(ConfigError, match="no header may hold"):
        Client(url="https://models.example.org/", authorization="a\nb")


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((200, b"<html>busy\x1b[31m</html>"), "did not answer in JSON: <html>busy"),
        ((200, b"[" * 100_000), "did not answer in JSON"),
        ((200, {"probabilities": "x" * 5000}), "larger than 4,096 bytes"),
        ((200, {"classes": [1]}), "without exactly one of"),
        ((200, {"labels": [0], "logits": [[0, 1]]}), "without exactly one of"),
        ((200, []), "without exactly one of"),
        ((200, {"probabilities": [[1, 0]]}), r"the shape \[1, 2\] for 4 images"),
        ((200, {"probabilities": [[0.5, 0.5]] * 5}), r"the shape \[5, 2\] for 4 images"),
        ((200, {"probabilities": [[1, 0], [1]]}), "rows of unequal length"),
        ((200, {"probabilities": [["a", "b"]] * 4}), "no list of numbers"),
        ((200, {"probabilities": None}), "the shape"),
        ((200, {"probabilities": [[3, 4]] * 4}), "no probabilities"),
        ((200, b'{"probabilities": [[NaN, 1], [0, 1], [0, 1], [0, 1]]}'), "NaN"),
        ((200, b'{"logits": [[Infinity, 1], [0, 1], [0, 1], [0, 1]]}'), "rows of finite numbers"),
        ((200, {"labels": [[0, 1]] * 4}), "no plain list"),
        ((401, {"detail": "who?"}), 'refused with HTTP 401: {"detail": "who[?]"}'),
        ((404, b""), "refused with HTTP 404"),
        ((400, b"\x1b]0;owned\x07"), "HTTP 400: [?]]0;owned[?]"),
    ],
)
def test_answers_of_no_use_are_told(reply: Reply, told: str) -> None:
    with serving(Server(reply)) as url, pytest.raises(EndpointError, match=told) as caught:
        quick(url, tries=1, largest=4096 if len(str(reply)) < 20_000 else 2**20)
    assert caught.value.hint and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("told", [{"inputs": []}, {}, [], {"inputs": [{"name": "a"}, {"name": "b"}]}])
def test_a_model_of_no_single_input_is_told(told: Any) -> None:
    url_of = "/v2/models/m/versions/2/infer"
    with serving(Server((200, told))) as url, pytest.raises(EndpointError, match="exactly one input"):
        quick(url + url_of)
    metadata = (200, {"inputs": [{"name": "a"}]})
    short = (200, {"outputs": [{"shape": [4, 2], "data": [1]}]})
    with serving(Server(metadata, short)) as url, pytest.raises(EndpointError, match="outputs of a shape"):
        quick(url + url_of)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://models.example.org/", "no http:// or https://"),
        ("https:///predict", "no http:// or https://"),
        ("https://me:pass@models.example.org/", "user name or password"),
        ("https://models.example.org:99999/", "cannot be read"),
        ("https://models.example.org/a b", "must be encoded"),
    ],
)
def test_urls_of_no_use_are_told(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Client(url=url)
    assert caught.value.hint and "pass@" not in str(caught.value)


def test_urls_and_shapes() -> None:
    assert is_url("HTTPS://a/") and not is_url("http.pt") and shown_url("https://a/b?c=d#e") == "https://a/b"

    class Trusted:
        shape = (1, 8, 8)

    assert url_shape(None, None) == (3, 32, 32) and url_shape(None, Trusted()) == (1, 8, 8)
    assert url_shape((1, 8, 8), Trusted()) == (1, 8, 8)
    with pytest.raises(ConfigError, match="asks for"):
        url_shape((3, 8, 8), Trusted())
