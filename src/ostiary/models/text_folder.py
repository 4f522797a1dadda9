"""Models of texts in folders: weights, tokenizer and template, read and written without code from the folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostiary.core.errors import FormatError, MissingExtra, ModelError
from ostiary.core.files import atomic
from ostiary.models.huggingface import (
    MAX_JSON,
    TEXTS,
    class_names,
    names_architecture,
    quiet,
    read_folder,
    read_json,
)
from ostiary.models.language import LanguageModel
from ostiary.models.template import Template, template_of
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.tokens import config_of

NOTES = "ostiary.json"
"""Beside the weights: the digest of the template that the model was trained with, and what it was made from."""
PLAIN = "the folder brings no chat template; prompts are given as they are, with a line break before the answer"


def is_language_folder(path: Path) -> bool:
    """True for a folder whose config names a model that goes on with texts."""
    return names_architecture(path, "ForCausalLM", "LMHeadModel")


def is_text_classifier_folder(path: Path) -> bool:
    """True for a folder whose config names a model that puts texts into classes."""
    return names_architecture(path, TEXTS)


def load_language(folder: Path | str, *, device: str = "cpu") -> LanguageModel:
    """The causal language model in a folder: `config.json`, weights, `tokenizer.json`, and a chat template if any.

    Raises FormatError for what is missing or damaged, ModelError for a model that brings code, whose tokenizer does
    not fit, or whose template is not the one that it was trained with, MissingExtra without transformers.
    """
    folder = Path(folder)
    config, module = read_folder(folder, "AutoModelForCausalLM", "a language model")
    tokenizer, about = load_tokenizer(folder), _about(folder)
    beside = folder / "chat_template.jinja"
    template = template_of(about, _read_text(beside) if beside.is_file() else None, folder.name)
    _same_as_trained(folder, template)
    end = _end(config, about, tokenizer, folder.name)
    caution = None if template is not None else PLAIN
    found = LanguageModel(module, tokenizer, template or Template(), end=end, name=folder.name, caution=caution)
    found.known_as = _names(folder, config)
    return found.to(device)


def load_text_classifier(folder: Path | str, *, device: str = "cpu") -> TextClassifier:
    """The classifier of texts in a folder: `config.json`, weights and `tokenizer.json`; names of classes by `id2label`.

    Raises as `load_language`, and ModelError for a model of one score or of several labels at once.
    """
    folder = Path(folder)
    config, module = read_folder(folder, "AutoModelForSequenceClassification", "a classifier of texts")
    tokenizer, about = load_tokenizer(folder), _about(folder)
    count = int(config_of(module).num_labels)
    if count < 2 or config.get("problem_type") == "multi_label_classification":
        raise ModelError(
            f"'{folder.name}' does not put each text into one of several classes",
            hint="a model of a single score, or of several labels at once, is not examined",
        )
    names = class_names(config) or [str(label) for label in range(count)]
    pad = next(
        (one for one in (config.get("pad_token_id"), _token(about, "pad_token", tokenizer)) if type(one) is int),
        _first(config.get("eos_token_id")),
    )
    found = TextClassifier(module, tokenizer, names, pad=pad if type(pad) is int else 0, name=folder.name)
    return found.to(device)


def _names(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The folder's own name, that of the model in a cache of the Hugging Face Hub, and the one in `config.json`."""
    places = folder.resolve().parts[-3:]
    cached = [place.rpartition("--")[2] for place in places if place.startswith("models--")]
    said = config.get("_name_or_path")
    return (*places[-1:], *cached, *([said] if isinstance(said, str) and said else []))


def _about(folder: Path) -> dict[str, Any]:
    """What `tokenizer_config.json` says; raises ModelError where it names code."""
    path = folder / "tokenizer_config.json"
    about = read_json(path) if path.is_file() else {}
    if "auto_map" in about:
        raise ModelError(
            f"'{folder.name}' brings code of its own (auto_map in tokenizer_config.json), which is not run",
            hint="take the entry out if tokenizer.json holds the whole tokenizer",
        )
    return about


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `tokenizer.json`. Raises FormatError where there is none, or a damaged one."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("reading a tokenizer needs tokenizers", hint="pip install 'ostiary[text]'") from error
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FormatError(f"'{folder.name}' holds no tokenizer.json", hint="download the whole folder again")
    if path.stat().st_size > MAX_JSON:
        raise FormatError(f"'{folder.name}/tokenizer.json' is larger than the limit of {MAX_JSON} bytes")
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception
        raise FormatError(f"'{folder.name}/tokenizer.json' is no tokenizer: {error}") from error
    found.no_padding()
    found.no_truncation()
    return found


def save_language(model: LanguageModel, folder: Path, *, notes: Mapping[str, str] | None = None) -> None:
    """Write a model as a folder that transformers and `load_language` read; raises OutputError as `atomic`.

    The template is written as a chat template for one turn and its digest kept, so that another one is noticed.
    """
    about = {"eos_token": model.tokenizer.id_to_token(model.end), "chat_template": _jinja(model.template)}
    _save(model, folder, about, {"template": model.template.digest, **(notes or {})})


def save_text_classifier(model: TextClassifier, folder: Path, *, notes: Mapping[str, str] | None = None) -> None:
    """Write a model as a folder that transformers and `load_text_classifier` read; raises OutputError as `atomic`."""
    about = config_of(model.module)
    about.id2label = dict(enumerate(model.classes))
    about.label2id = {name: label for label, name in enumerate(model.classes)}
    about.pad_token_id = model.pad  # another model may have been made of the same module since
    _save(model, folder, {"pad_token": model.tokenizer.id_to_token(model.pad)}, notes or {})


def _save(
    model: LanguageModel | TextClassifier, folder: Path, about: Mapping[str, Any], notes: Mapping[str, str]
) -> None:
    with atomic(folder) as temporary:
        temporary.mkdir()
        with quiet():
            model.module.save_pretrained(temporary)  # type: ignore[operator]
        model.tokenizer.save(str(temporary / "tokenizer.json"))
        parts = {
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **about},
            NOTES: {"format": "1", **notes},
        }
        for name, part in parts.items():
            (temporary / name).write_text(json.dumps(part, indent=1) + "\n", encoding="utf-8")


def _jinja(template: Template) -> str:
    before, between, after = (json.dumps(part) for part in (template.before, template.between, template.after))
    return (
        "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        f"{{{{- {before} + message['content'] + {between} -}}}}"
        f"{{%- else -%}}{{{{- message['content'] + {after} -}}}}{{%- endif -%}}{{%- endfor -%}}"
    )


def _same_as_trained(folder: Path, template: Template | None) -> None:
    if not (folder / NOTES).is_file():
        return
    trained = read_json(folder / NOTES).get("template")
    if trained != (template or Template()).digest:
        raise ModelError(
            f"the chat template of '{folder.name}' is not the one that the model was trained with",
            hint=f"put the old one back; what is measured with another says nothing (its digest is in {NOTES})",
        )


def _end(config: Mapping[str, Any], about: Mapping[str, Any], tokenizer: Any, where: str) -> int:
    """The token that ends an answer: of the tokenizer's config, else of the model's."""
    found: object = _token(about, "eos_token", tokenizer)
    if found is None:
        found = _first(config.get("eos_token_id"))
    if type(found) is not int:
        raise ModelError(
            f"'{where}' does not say which token ends an answer", hint="give eos_token_id in its config.json"
        )
    return found


def _token(about: Mapping[str, Any], name: str, tokenizer: Any) -> int | None:
    """The number of a token that `tokenizer_config.json` names."""
    token = about.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(token) if isinstance(token, str) else None
    return found


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"'{path.name}' is larger than the limit of {MAX_JSON} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read '{path}': {error}") from error
