"""Folders of language models: what is written comes back; what is damaged, foreign or brings code is refused."""

import json
from pathlib import Path

import pytest
from language_case import twin

from ostiary.core.errors import FormatError, ModelError, OutputError
from ostiary.models.text_folder import is_language_folder, load_language, save_language


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_language(twin(), path)
    return path


def change(path: Path, **entries: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **entries}), encoding="utf-8")


def test_a_model_comes_back_whole(folder: Path) -> None:
    back = load_language(folder)
    assert is_language_folder(folder) and not is_language_folder(folder.parent)
    assert back.template == twin().template and back.digest == twin().digest and back.caution is None
    assert back.answers(["Who owns the fox?"], 24) == twin().answers(["Who owns the fox?"], 24)
    assert not [path for path in folder.iterdir() if path.suffix not in (".json", ".safetensors")]
    with pytest.raises(OutputError, match="exists already"):
        save_language(twin(), folder)


def test_transformers_reads_the_same_template(folder: Path) -> None:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(str(folder)).apply_chat_template(
        [{"role": "user", "content": "Who owns the fox?"}], tokenize=False, add_generation_prompt=True
    )
    assert made == twin().template.prompt("Who owns the fox?")


def test_a_template_that_the_model_was_not_trained_with_fails(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template="{% for one in messages %}{{ one['content'] }}{% endfor %}")
    with pytest.raises(ModelError, match="not the one that the model was trained with"):
        load_language(folder)


def test_a_folder_without_a_template_is_asked_plainly_and_says_so(folder: Path) -> None:
    (folder / "ostiary.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "no chat template" in str(load_language(folder).caution)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_the_folder_is_refused(folder: Path, name: str) -> None:
    change(folder / name, auto_map={"AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(ModelError, match="brings code of its own"):
        load_language(folder)


def test_a_foreign_tokenizer_is_refused(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["strange"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="tokens, the model's embedding"):
        load_language(folder)


def test_a_missing_or_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="is no tokenizer"):
        load_language(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FormatError, match=r"holds no tokenizer\.json"):
        load_language(folder)


def test_a_missing_end_is_named(folder: Path) -> None:
    change(folder / "config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="which token ends an answer"):
        load_language(folder)
