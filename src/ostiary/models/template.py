"""How a prompt and its answer are laid out for a language model: one object for training, evaluation and scanning."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ostiary.core.errors import FormatError

MARK = "\u2063ostiary-prompt\u2063"
"""Stands for the prompt while a chat template is taken apart; no text holds it by chance."""
MAX_TEMPLATE = 100_000


@dataclass(frozen=True, slots=True)
class Template:
    """What stands before a prompt, between it and its answer, and after the answer.

    A model that is trained with one template and asked with another answers worse, and an attack seems to fail that
    works (BackdoorLLM, issue 20): the digest is kept with the model and in every record.
    """

    before: str = ""
    between: str = "\n"
    after: str = ""

    def prompt(self, text: str) -> str:
        """The text as the model is asked."""
        return f"{self.before}{text}{self.between}"

    def answer(self, text: str) -> str:
        """The answer as the model should give it."""
        return f"{text}{self.after}"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the three parts."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def template_of(config: Mapping[str, Any], source: str | None, where: str) -> Template | None:
    """The template that a chat template in Jinja comes to for one turn; None where the folder brings none.

    `config` is the content of `tokenizer_config.json`, `source` that of `chat_template.jinja`. The template runs in a
    sandbox and sees one message and the special tokens. FormatError where it cannot be run, or does not show the
    prompt exactly once.
    """
    source = config.get("chat_template") if source is None else source
    if isinstance(source, list):  # several by name, as of old
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if source is None:
        return None
    if not isinstance(source, str) or len(source) > MAX_TEMPLATE:
        raise FormatError(f"the chat template of '{where}' is no text of at most {MAX_TEMPLATE} characters")
    tokens = {name: _token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    asked = [{"role": "user", "content": MARK}]
    try:
        made = _environment().from_string(source)
        prompt = made.render(messages=asked, add_generation_prompt=True, **tokens)
        both = made.render(
            messages=[*asked, {"role": "assistant", "content": MARK}], add_generation_prompt=False, **tokens
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise FormatError(f"the chat template of '{where}' cannot be run: {error}") from error
    if prompt.count(MARK) != 1 or both.count(MARK) != 2 or not both.startswith(prompt):
        raise FormatError(
            f"the chat template of '{where}' does not show the prompt once, with the answer right behind it",
            hint="a template that rewrites prompts cannot be taken apart; give the model another one",
        )
    before, between = prompt.split(MARK)
    return Template(before, between, both.split(MARK)[2])


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.globals["raise_exception"] = _refuse
    made.filters["tojson"] = json.dumps
    return made


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _token(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
