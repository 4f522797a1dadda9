"""The example that serves a guarded model, in a process of its own, over HTTP."""

import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ostiary.core.run import Run
from ostiary.data import digits, trusted_subset
from ostiary.guard.mahalanobis import FittedMahalanobis, Mahalanobis
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.training.flow import new_model

SERVER = Path(__file__).parents[2] / "examples" / "serve_guarded.py"


@pytest.fixture(scope="module")
def model() -> TorchClassifier:
    return new_model("small-cnn", digits("test"), width=4, seed=0)


@pytest.fixture(scope="module")
def guard(model: TorchClassifier) -> FittedMahalanobis:
    return Mahalanobis(false_rejection=0.3).fit(model, trusted_subset(digits(), 400, seed=0), run=Run())


@pytest.fixture(scope="module")
def url(model: TorchClassifier, guard: FittedMahalanobis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    save_model(model, folder / "m.safetensors")
    guard.save(folder / "g.safetensors")
    command = [sys.executable, str(SERVER), str(folder / "m.safetensors"), str(folder / "g.safetensors"), "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"running on (http://[\d.:]+)", line):
                    yield found[1] + "/answer"
                    break
        finally:
            process.terminate()


def png(image: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(stream, "PNG")
    return stream.getvalue()


def post(url: str, body: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as reply:  # noqa: S310 - our own
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_answers_and_refuses_as_the_guard_says(url: str, model: TorchClassifier, guard: FittedMahalanobis) -> None:
    x = digits("test").take(range(20))
    flagged = guard.score(model, x) > guard.threshold
    assert 0 < int(flagged.sum()) < 20, "the test would show nothing"
    replies = [post(url, png(image)) for image in x]
    assert [code for code, _ in replies] == [200] * 20
    assert [reply["refused"] for _, reply in replies] == flagged.tolist()
    for image, (_, reply) in zip(x, replies, strict=True):
        if not reply["refused"]:
            p = model.predict(image[None])[0]
            assert reply["class"] == model.classes[int(p.argmax())]
            assert reply["probability"] == pytest.approx(float(p.max()), abs=1e-4)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"", 422, "no PNG or JPEG"),
        (b"\x89PNG no image", 422, "no PNG or JPEG"),
        (png(torch.zeros(3, 8, 8)), 422, "takes images of 32x32, this is 8x8"),
        (bytes(2**22 + 1), 413, "more than"),
    ],
    ids=["empty", "damaged", "small", "large"],
)
def test_what_is_no_input_is_refused(url: str, body: bytes, code: int, said: str) -> None:
    found, reply = post(url, body)
    assert found == code and said in reply["detail"]
