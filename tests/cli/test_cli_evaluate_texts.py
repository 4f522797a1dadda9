"""`ostiary evaluate` on classifiers of texts, and what other verbs say of them: good input and bad."""

from pathlib import Path

import pytest
from classifier_case import attacked, clean, trusted
from cli_case import Result, batch
from text_case import chat

from ostiary.attacks.text_poison import save_text_truth
from ostiary.attacks.truth import truth_path
from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.data import TextSet, digits, write_texts
from ostiary.models.load import save_model
from ostiary.models.text_folder import save_text_classifier
from ostiary.training.flow import new_model

CALLS = {
    "good": ("evaluate", "model", "reviews.jsonl", "--truth", "set.truth", "--twin", "twin", "--format", "json"),
    "no truth": ("evaluate", "model", "reviews.jsonl"),
    "chat truth": ("evaluate", "model", "reviews.jsonl", "--truth", "chats.truth"),
    "image truth": ("evaluate", "model", "reviews.jsonl", "--truth", "images.truth"),
    "image twin": ("evaluate", "model", "reviews.jsonl", "--twin", "image.safetensors"),
    "image model": ("evaluate", "image.safetensors", "reviews.jsonl"),
    "chats": ("evaluate", "model", "chats.jsonl"),
    "images": ("evaluate", "model", "digits"),
    "arch": ("evaluate", "model", "reviews.jsonl", "--arch", "resnet18"),
    "other classes": ("evaluate", "model", "stars.csv"),
    "other names": ("evaluate", "model", "names.csv", "--truth", "set.truth"),
    "nothing to stamp": ("evaluate", "model", "short.jsonl", "--truth", "styled.truth"),
    "calibrate": ("calibrate", "model", "--trusted", "digits", "-o", "out"),
}
SEALED = ("calibrate",)
"""What a process cannot do that has seen the truth."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    folder = tmp_path_factory.mktemp("evaluate")
    tests = trusted(80)
    write_texts(folder / "reviews.jsonl", tests)
    short = TextSet(["Dull film", "Warm film"], ids=["a", "b"], labels=tests.labels[:2] * 0, classes=tests.classes)
    short.labels[1] = 1
    write_texts(folder / "short.jsonl", short)
    write_texts(folder / "chats.jsonl", chat(20))
    (folder / "stars.csv").write_text("text,label\nfine,0\nbad,1\nso,2\n")
    (folder / "names.csv").write_text("text,label\nfine,no\nbad,yes\n")
    save_text_classifier(attacked(), folder / "model")
    save_text_classifier(clean(), folder / "twin")
    for name, attack, data in (
        ("set", "rare-words", tests),
        ("chats", "rare-words", chat(60)),
        ("styled", "writing-style", tests),
    ):
        params = {"words": "cf"} if attack == "rare-words" else {"style": "archaic"}
        save_text_truth(make("attack", attack, params).poison(data, run=Run()).truth, truth_path(folder / name))
    save_model(new_model("small-cnn", digits("test"), width=2, seed=0), folder / "image.safetensors")
    found: dict[str, Result] = {}
    for sealed in (False, True):
        some = {name: call for name, call in CALLS.items() if (name in SEALED) == sealed}
        poison = [["poison", "digits", "--attack", "badnets", "-o", "images"]] if not sealed else []
        found |= dict(zip(some, batch([*poison, *some.values()], cwd=folder)[len(poison) :], strict=True))
    return folder, found


def test_success_is_counted_with_the_trigger_and_without(told: tuple[Path, dict[str, Result]]) -> None:
    good = told[1]["good"]
    assert good.code == 0, good.err
    rates = good.record["results"][0]["evidence"]["rates"]
    others = int((trusted(80).labels != 0).sum())
    assert rates["accuracy"]["n"] == 80 and rates["accuracy"]["value"] >= 0.8
    assert rates["attack success rate"]["n"] == rates["attack success rate without the trigger"]["n"] == others
    assert rates["attack success rate"]["value"] >= 0.9
    assert rates["attack success rate without the trigger"]["value"] <= 0.3
    assert rates["attack success rate of the clean-trained model"]["value"] <= 0.4
    assert good.record["config"]["task"] == "classify"


def test_without_a_truth_there_is_accuracy_alone(told: tuple[Path, dict[str, Result]]) -> None:
    plain = told[1]["no truth"]
    assert plain.code == 0 and "accuracy: " in plain.out and "attack success" not in plain.out, plain


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("chat truth", "the truth is of a poisoned set of chats"),
        ("image truth", "holds no truth about texts"),
        ("image twin", "'image.safetensors' is no classifier of texts"),
        ("image model", "a set of images is needed, this is text"),
        ("chats", "nothing to classify by"),
        ("images", "'digits' is no file of texts"),
        ("arch", "takes no --arch"),
        ("other classes", "has 3 classes, the model 2"),
        ("other names", "the truth has the classes bad, good, 'names.csv' has no, yes"),
        ("nothing to stamp", "changes none of the 1 texts"),
        ("calibrate", "is a classifier of texts, and a model of images or a language model is needed"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(call: str, said: str, told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results[call].code == 2 and said in results[call].err, results[call]
    assert "Unrecognized" not in results[call].err and not (folder / "out").exists()
