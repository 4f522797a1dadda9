"""`ostiary scan URL`, against the example server in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_case import Result, batch, environment

from ostiary.data import digits
from ostiary.models.load import save_model
from ostiary.training.flow import new_model

SERVER = Path(__file__).parents[2] / "examples" / "serve_a_model.py"
FEW = ["--trusted", "digits", "--limit", "60"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The example server with an untrained network."""
    folder = tmp_path_factory.mktemp("served")
    save_model(new_model("small-cnn", digits("test"), width=4, seed=0), folder / "m.safetensors")
    with subprocess.Popen(
        [sys.executable, str(SERVER), str(folder / "m.safetensors"), "0"],
        env=environment(folder / "runs"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def results(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("endpoint")
    calls = {
        "scan": ["scan", url, *FEW, "--set", "b3d.steps=10", "--format", "json", "-o", "scan.html"],
        "dry": ["scan", url, *FEW, "--dry-run"],
        "gradients": ["scan", url, *FEW, "--method", "neural-cleanse"],
        "classes": ["scan", url, *FEW, "--classes", "7"],
        "arch": ["scan", url, *FEW, "--arch", "small-cnn"],
        "shape": ["scan", url, *FEW, "--input", "3,8,8"],
        "wrong shape": ["scan", url, "--input", "3,8,8"],
        "repair": ["repair", url, "--trusted", "digits", "-o", "new.safetensors"],
        "secret": ["scan", "https://me:hush@models.example.org/"],
    }
    return dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))


def test_an_endpoint_is_scanned_by_queries(results: dict[str, Result], url: str) -> None:
    record = results["scan"].record
    assert results["scan"].code in (0, 1, 3), results["scan"].err
    assert record["subject"] == url and record["coverage"]["asked"] == ["scan.b3d"]
    assert record["results"][0]["status"] == "ok" and record["config"]["queries"] > 10 * 320
    assert len(record["digests"]["model"]) == 64


def test_a_dry_run_says_what_would_run(results: dict[str, Result]) -> None:
    out = results["dry"].out
    assert results["dry"].code == 0 and "scan.b3d" in out and "runs: " in out and "queries" in out
    assert "neural-cleanse" not in out


def test_gradient_methods_are_skipped(results: dict[str, Result]) -> None:
    told = results["gradients"]
    assert told.code == 3 and "needs model access 'gradients', has 'probabilities'" in told.out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("classes", "answers with 10 numbers, for 7 classes"),
        ("arch", "an endpoint takes no --arch"),
        ("shape", "--input asks for"),
        ("wrong shape", "refused with HTTP 400"),
        ("repair", "is an endpoint, which can be scanned and no more"),
        ("secret", "holds a user name or password"),
    ],
)
def test_what_does_not_fit_is_told(results: dict[str, Result], name: str, words: str) -> None:
    told = results[name]
    assert told.code == 2 and words in told.err and "hint: " in told.err and "hush" not in told.err


def test_the_example_server_needs_no_more_than_the_standard_library_and_ours() -> None:
    assert os.access(SERVER, os.R_OK) and "http.server" in SERVER.read_text(encoding="utf-8")
