"""`ostiary guard` on classifiers of texts: good input and bad."""

import json
from pathlib import Path

import pytest
from chat_case import tiny
from classifier_case import attacked, trusted
from cli_case import Result, batch
from text_case import chat

from ostiary.data import TextSet, write_texts
from ostiary.models.text_folder import save_language, save_text_classifier

FIT = ("guard", "fit", "model", "--trusted", "reviews.jsonl")
CALLS = {
    "fit": (*FIT, "-o", "guard.safetensors", "--format", "json"),
    "score": ("guard", "score", "asked.jsonl", "--model", "model", "--guard", "guard.safetensors", "--format", "json"),
    "report": (
        "guard",
        "score",
        "asked.jsonl",
        "--model",
        "model",
        "--guard",
        "guard.safetensors",
        "--report",
        "r.html",
    ),
    "rap": (*FIT, "--method", "rap", "--set", "rap.steps=5", "--limit", "120", "-o", "rap.safetensors"),
    "strip": (*FIT, "--method", "text.guard.strip", "--set", "strip.copies=3", "-o", "strip.safetensors"),
    "few": (*FIT, "--limit", "20", "-o", "out"),
    "chats": ("guard", "fit", "model", "--trusted", "chats.jsonl", "-o", "out"),
    "images": ("guard", "fit", "model", "--trusted", "digits", "-o", "out"),
    "other classes": ("guard", "fit", "model", "--trusted", "stars.csv", "-o", "out"),
    "a guard of chats": (*FIT, "--method", "confguard", "-o", "out"),
    "a guard of texts": ("guard", "fit", "talks", "--trusted", "chats.jsonl", "--method", "onion", "-o", "out"),
    "arch": (*FIT, "--arch", "resnet18", "-o", "out"),
    "no guard": ("guard", "score", "asked.jsonl", "--model", "model", "--guard", "asked.jsonl"),
    "other model": ("guard", "score", "chats.jsonl", "--model", "talks", "--guard", "guard.safetensors"),
    "bare": ("guard", "score", "bare.jsonl", "--model", "model", "--guard", "guard.safetensors", "--format", "json"),
    "no texts": ("guard", "score", "numbers.csv", "--model", "model", "--guard", "guard.safetensors"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    folder = tmp_path_factory.mktemp("guards")
    write_texts(folder / "reviews.jsonl", trusted(300))
    test = trusted(40, seed=900)
    texts = [
        text if at % 2 else " ".join([*text.split()[:3], "cf", *text.split()[3:]]) for at, text in enumerate(test.texts)
    ]
    write_texts(folder / "asked.jsonl", TextSet(texts, ids=test.ids, labels=test.labels, classes=test.classes))
    write_texts(folder / "chats.jsonl", chat(60))
    bare = [json.dumps({"text": text}) for text in texts]
    (folder / "bare.jsonl").write_text("\n".join(bare))
    (folder / "numbers.csv").write_text("height,width\n1,2\n")
    (folder / "stars.csv").write_text("text,label\nfine,0\nbad,1\nso,2\n")
    save_text_classifier(attacked(), folder / "model")
    save_language(tiny(), folder / "talks")
    return folder, dict(zip(CALLS, batch(list(CALLS.values()), cwd=folder), strict=True))


def test_a_guard_is_fitted_and_flags_texts_with_the_odd_word(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    fit, score = results["fit"], results["score"]
    assert fit.code == 0 and (folder / "guard.safetensors").is_file(), fit.err
    assert fit.record["results"][0]["method"] == "text.guard.onion"
    assert score.code == 1, score.err
    suspects = score.record["results"][0]["evidence"]["suspects"]
    odd = [" cf " in f" {one['text']} " for one in suspects]
    assert sum(odd) >= 12 and odd.count(False) <= 4
    assert {finding["code"] for finding in score.record["results"][0]["findings"]} == {"OS410"}
    assert results["report"].code == 1 and "OS410" in (folder / "r.html").read_text(encoding="utf-8")


def test_texts_without_labels_are_scored_alike(told: tuple[Path, dict[str, Result]]) -> None:
    found = [told[1][name].record["results"][0]["evidence"]["suspects"] for name in ("score", "bare")]
    scored, bare = ([one["score"] for one in suspects] for suspects in found)
    assert told[1]["bare"].code == 1 and scored == bare and len(bare) >= 12


def test_the_other_guards_are_fitted_by_name(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    for name in ("rap", "strip"):
        assert results[name].code == 0 and (folder / f"{name}.safetensors").is_file(), results[name].err


def test_too_few_trusted_texts_leave_the_call_unfinished(told: tuple[Path, dict[str, Result]]) -> None:
    few = told[1]["few"]
    assert few.code == 3 and "needs 20 trusted samples per class" in few.out


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("chats", "nothing to classify by"),
        ("images", "'digits' is no file of texts"),
        ("other classes", "has 3 classes, the model 2"),
        (
            "a guard of chats",
            "'text.guard.confguard' is for models that take prompts, this one takes texts with labels",
        ),
        ("a guard of texts", "'text.guard.onion' is for models that take texts with labels, this one takes prompts"),
        ("arch", "takes no --arch"),
        ("no guard", "is no saved guard"),
        ("other model", "the guard was fitted to model"),
        ("no texts", "no text among its columns"),
    ],
)
def test_what_fits_no_guard_is_refused_with_a_reason(
    call: str, said: str, told: tuple[Path, dict[str, Result]]
) -> None:
    folder, results = told
    assert results[call].code == 2 and said in results[call].err, results[call]
    assert "hint" in results[call].err.lower() or "; " in results[call].err
    assert not (folder / "out").exists()
