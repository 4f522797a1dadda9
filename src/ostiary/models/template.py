"""How a prompt and its answer are laid out for a language model: one object for training, evaluation and scanning."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ostiary.core.errors import FormatError
from ostiary.provenance.confine import environment

MARK = "\u2063ostiary-prompt\u2063"
"""Stands for the prompt while a chat template is taken apart; no text holds it by chance."""
MAX_TEMPLATE = 100_000
MAX_RENDERED = 1_000_000
SECONDS, WAITED = 5, 60
"""Of the processor that a template may take, and of the clock."""
MEMORY = 256 * 2**20
"""Bytes that a template may take."""


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
    sandbox, in a process with bounds of its own, and sees one message and the special tokens. FormatError where it
    cannot be run or goes beyond these bounds, or does not show the prompt exactly once.
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
    prompt, both = _rendered(source, tokens, where)
    if prompt.count(MARK) != 1 or both.count(MARK) != 2 or not both.startswith(prompt):
        raise FormatError(
            f"the chat template of '{where}' does not show the prompt once, with the answer right behind it",
            hint="a template that rewrites prompts cannot be taken apart; give the model another one",
        )
    before, between = prompt.split(MARK)
    return Template(before, between, both.split(MARK)[2])


def _rendered(source: str, tokens: Mapping[str, str], where: str) -> tuple[str, str]:
    """What a template makes of a prompt, and of a prompt with its answer; raises FormatError.

    A template is a program of a stranger: powers and repeated texts are worked out before it even runs, so that no
    count of its steps would hold it. It runs in a process of its own that the system ends.
    """
    asked = [{"role": "user", "content": MARK}]
    told = [*asked, {"role": "assistant", "content": MARK}]
    order = {
        "source": source,
        "tokens": tokens,
        "turns": [
            {"messages": asked, "add_generation_prompt": True},
            {"messages": told, "add_generation_prompt": False},
        ],
        "seconds": SECONDS,
        "memory": MEMORY,
        "most": MAX_RENDERED,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ostiary.models.template_child"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=False,
            timeout=WAITED,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        raise _failed(where, f"it was stopped after {WAITED} seconds") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        if done.returncode >= 0:
            last = (done.stderr.strip().splitlines() or [""])[-1][:200]
            raise _failed(where, f"the process that runs it ended with {done.returncode} {last}".rstrip()) from None
        raise _failed(
            where, f"it was stopped, as it takes more than {SECONDS} seconds or {MEMORY >> 20} MiB of memory"
        ) from None
    if "error" in answer:
        raise _failed(where, answer["error"])
    prompt, both = answer["rendered"]
    return prompt, both


def _failed(where: str, why: str) -> FormatError:
    return FormatError(
        f"the chat template of '{where}' cannot be run: {why}",
        hint="put the template that the model was trained with into its tokenizer_config.json",
    )


def _token(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
