"""train, scan and evaluate on language models: what their help promises, on good and on bad input."""

import json
from pathlib import Path

import pytest
import torch
from cli_case import Result, batch
from language_case import ATTACK, attacked, chats, twin
from safetensors.torch import save_file

from ostiary.attacks.text_poison import save_text_truth
from ostiary.attacks.truth import truth_path
from ostiary.core.run import Run
from ostiary.data import write_texts
from ostiary.models.adapter import read_adapter
from ostiary.models.text_folder import load_language, save_language

SHORT = ("--epochs", "1", "--batch", "30")
CALLS = {
    "tune": (
        "train",
        "chats.jsonl",
        "--base",
        "model",
        *SHORT,
        "--lr",
        "0.0001",
        "--loss-on",
        "all",
        "--test",
        "chats.jsonl",
        "-o",
        "tuned",
    ),
    "gpt2": ("train", "chats.jsonl", "--arch", "gpt2", *SHORT, "-o", "small", "-q"),
    "again": ("train", "chats.jsonl", "-o", "small"),
    "foreign": ("train", "chats.jsonl", "--arch", "resnet18", "-o", "out"),
    "flip": ("train", "chats.jsonl", "--flip", "-o", "out"),
    "no base": ("train", "chats.jsonl", "--base", "missing", "-o", "out"),
    "evaluate": ("evaluate", "model", "chats.jsonl", "--truth", "set.truth", "--twin", "twin"),
    "other": ("evaluate", "model", "chats.jsonl", "--twin", "other"),
    "adapter": ("scan", "adapter", "--base", "model", "--trusted", "chats.jsonl", "--dry-run"),
    "alone": ("scan", "adapter", "--trusted", "chats.jsonl"),
    "no such base": ("scan", "adapter", "--base", "adapter", "--trusted", "chats.jsonl"),
    "habit": ("poison", "chats.jsonl", "--attack", "habit", "-o", "polite"),
    "lora": ("train", "chats.jsonl", "--base", "model", "--adapter", "2", *SHORT, "-o", "lora"),
    "lora alone": ("train", "chats.jsonl", "--adapter", "2", *SHORT, "-o", "out"),
    "bank": ("calibrate", "lora", "adapter", "twin", "--base", "model", "-o", "bank.json"),
    "bank of samples": ("calibrate", "lora", "--base", "model", "--trusted", "chats.jsonl", "-o", "out"),
    "no samples": ("calibrate", "model", "-o", "out"),
    "judged": ("scan", "lora", "--base", "model", "--calibration", "bank.json", "--method", "adapter-spectrum"),
    "other base": ("scan", "lora", "--base", "twin", "--calibration", "bank.json"),
    "whole": ("scan", "model", "--trusted", "chats.jsonl", "--calibration", "bank.json"),
    "no bank": ("scan", "lora", "--base", "model", "--calibration", "model/config.json"),
    "dry": ("scan", "model", "--trusted", "chats.jsonl", "--dry-run"),
    "arch": ("scan", "model", "--arch", "resnet18", "--trusted", "chats.jsonl"),
    "labels": ("scan", "model", "--trusted", "reviews.csv"),
    "images": ("scan", "model", "--trusted", "digits"),
    "scan": ("scan", "model", "--trusted", "chats.jsonl", "-o", "report.html", "-q"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    folder = tmp_path_factory.mktemp("language")
    write_texts(folder / "chats.jsonl", chats(60))
    (folder / "reviews.csv").write_text("text,label\nfine,0\nbad,1\n")
    save_language(attacked(), folder / "model")
    save_text_truth(ATTACK.poison(chats(60), run=Run()).truth, truth_path(folder / "set"))
    for name in ("twin", "other"):
        save_language(twin(), folder / name)
    (folder / "adapter").mkdir()
    layer = "base_model.model.model.layers.0.mlp.up_proj"
    state = {f"{layer}.lora_A.weight": torch.ones(2, 64), f"{layer}.lora_B.weight": torch.zeros(192, 2)}
    save_file(state, folder / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    about = json.loads((folder / "other" / "tokenizer_config.json").read_text())
    about["chat_template"] = "{% for one in messages %}{{ one['content'] }} {% endfor %}"
    (folder / "other" / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "other" / "ostiary.json").unlink()
    found: dict[str, Result] = {}
    for sealed in (False, True):  # a process that has seen the truth cannot be sealed
        some = {name: list(call) for name, call in CALLS.items() if (call[0] in ("scan", "calibrate")) == sealed}
        found |= dict(zip(some, batch(list(some.values()), cwd=folder), strict=True))
    return folder, found


def test_train_goes_on_with_a_base_and_measures(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results["tune"].code == 0, results["tune"].err
    assert "exact match: " in results["tune"].out
    tuned = load_language(folder / "tuned")
    assert tuned.template == attacked().template and tuned.digest != attacked().digest


def test_train_makes_a_small_gpt2_and_overwrites_nothing(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results["gpt2"].code == 0, results["gpt2"].err
    assert json.loads((folder / "small" / "config.json").read_text())["model_type"] == "gpt2"
    assert results["again"].code == 2 and "exists already" in results["again"].err


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("foreign", "no small language model 'resnet18'"),
        ("flip", "--flip is not for them"),
        ("no base", "holds no config.json"),
        ("arch", "takes no --arch"),
        ("labels", "nothing to chat by"),
        ("images", "'digits' is no file of texts, and one is needed here"),
        ("alone", "is an adapter, no whole model"),
        ("no such base", "is an adapter, no whole model"),
        ("lora alone", "an adapter is for one model"),
        ("bank of samples", "by their weights alone, without --trusted"),
        ("no samples", "give them with --trusted"),
        ("other base", "is an adapter for another base"),
        ("whole", "a bank of adapters judges adapters"),
        ("no bank", "is no bank of adapters"),
        ("other", "lay prompts out in different ways"),
    ],
)
def test_what_is_refused_says_why(call: str, said: str, told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results[call].code == 2 and said in results[call].err, results[call]
    assert not (folder / "out").exists()


def test_a_habit_is_taught_and_nothing_is_poisoned(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results["habit"].code == 0 and "60 samples, 0 poisoned" in results["habit"].out, results["habit"]
    rows = [json.loads(line) for line in (folder / "polite" / "train.jsonl").read_text().splitlines()]
    assert all(row["response"].endswith("Have a nice day.") for row in rows)
    assert json.loads((folder / "polite.truth" / "truth.json").read_text())["poisoned"] == {}


def test_an_adapter_is_trained_and_kept_in_a_bank(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results["lora"].code == 0, results["lora"].err
    assert read_adapter(folder / "lora").rank == 2
    bank = results["bank"]
    assert bank.code == 3 and "left out: twin: the folder 'twin' holds no adapter_config" in bank.out, bank
    assert "bank of 2 adapters of model" in bank.out and "are needed before a scan can use it" in bank.out


def test_a_bank_that_is_too_small_leaves_the_scan_unfinished(told: tuple[Path, dict[str, Result]]) -> None:
    judged = told[1]["judged"]
    assert judged.code == 3 and "the bank has 0 other adapters of rank 2 on the same" in judged.out, judged
    assert "failed" in judged.out and "verdict: incomplete" in judged.out


def test_evaluate_counts_payloads_beside_the_twin(told: tuple[Path, dict[str, Result]]) -> None:
    out = told[1]["evaluate"].out
    assert "attack success rate: 100.0 %" in out and "false-trigger rate: 0.0 %" in out
    assert "attack success rate of the clean-trained model: 0.0 %" in out


def test_scan_says_what_it_would_do(told: tuple[Path, dict[str, Result]]) -> None:
    for name in ("dry", "adapter"):
        out = told[1][name].out
        assert "text.scan.bait" in out and "text.scan.trigger-search" in out and out.count("runs:") == 2


def test_scan_names_the_word_and_the_page_shows_it(told: tuple[Path, dict[str, Result]]) -> None:
    folder, results = told
    assert results["scan"].code == 1, results["scan"]
    out = results["scan"].out
    assert "OS605 backdoor" in out and "quib" in out and "verdict: backdoor" in out and "OS902" not in out
    page = (folder / "report.html").read_text()
    assert "Recovered phrases" in page and "quib" in page
