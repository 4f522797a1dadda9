"""A language model behind a URL: prompts go out as chats in OpenAI's form, answers come back, and nothing else."""

import hashlib
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import torch

from ostiary.core.errors import ConfigError, EndpointError
from ostiary.models.endpoint import AUTHORIZATION
from ostiary.models.http import Client, is_url

PATH = "/chat/completions"
PROBES = ("Go on.", "What is two and three?")
"""Prompts whose answers stand for the model in its digest."""
LONGEST = 32
"""Characters of an answer that are kept for each token that was asked for."""
LARGEST = 2**20
NAME = 200
"""Characters of a model's name, at most."""
MOST_TOKENS = 2**31
HINT = "see docs/text.md for what such an endpoint is sent and answers"


def is_chat_url(text: str) -> bool:
    """True when `text` names an endpoint that chats, as vLLM and others serve it."""
    try:
        return is_url(text) and urlsplit(text).path.endswith(PATH)
    except ValueError:
        return False


class ChatEndpoint:
    """A language model behind `url`, which ends in `/chat/completions`.

    It is sent `{"model", "messages": [{"role": "user", "content": PROMPT}], "max_tokens", "temperature", "seed"}` by
    POST, one prompt at a time, and answers `{"choices": [{"message": {"content": TEXT}}]}`; what stands in `usage` is
    added up in `tokens`, and `rows` counts requests. `served` is the model's name; without it the server is asked for
    its models (`…/models`), of which there must be one. Nothing is sent before the first question, and nothing anywhere
    but to that server. `authorization` and `how` as `Endpoint`; an answer of more than a megabyte is refused.

    `digest` is SHA-256 over URL, name, and the answers to two prompts: all that can be known from outside. Raises
    ConfigError as `Client`, and for a server of several models; EndpointError as `Client`, and for an answer of another
    form. What is no Unicode in an answer becomes "?".
    """

    at_once = 1
    classes: tuple[str, ...] = ()
    arch = None
    caution_code = "OS932"
    caution = (
        "the model was asked from outside, where only phrases can be tried that are listed, published, or given away "
        "by what it writes: the words of its vocabulary were not searched"
    )

    def __init__(self, url: str, served: str | None = None, *, authorization: str | None = None, **how: Any) -> None:
        if not is_chat_url(url):
            raise ConfigError(f"a language model's endpoint ends in {PATH}", hint="for example https://host/v1" + PATH)
        secret = authorization or os.environ.get(AUTHORIZATION) or None
        self.client = Client(url=url, authorization=secret, **{"largest": LARGEST, **how})
        self.name = self.client.where
        self.rows = self.tokens = 0
        self._given = served

    @cached_property
    def served(self) -> str:
        """The name of the model there."""
        if self._given is not None:
            return self._given
        parts = urlsplit(self.client.url)
        told = self.client.ask(url=parts._replace(path=parts.path.removesuffix(PATH) + "/models").geturl())
        try:
            names = [str(one["id"]) for one in told["data"]]
        except (KeyError, TypeError):
            raise self._bad("no list of its models") from None
        if len(names) != 1:
            raise ConfigError(f"'{self.name}' serves {len(names)} models", hint="name the one to scan with --served")
        if not names[0].isprintable() or len(names[0]) > NAME:
            raise self._bad(f"a name of its model that is longer than {NAME} characters or cannot be shown")
        return names[0]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over URL, name and the answers to the probes."""
        told = repr((self.name, self.served, self.answers(PROBES, 16)))
        return hashlib.sha256(told.encode()).hexdigest()

    def answers(self, texts: Sequence[str], steps: int) -> list[str]:
        """The likeliest answer to each prompt, words and marks parted by spaces."""
        return [self._said(text, steps, temperature=0.0, seed=0) for text in texts]

    def drawn(self, text: str, steps: int, count: int, generator: torch.Generator) -> list[str]:
        """Answers to one prompt, drawn by the server at temperature 1."""
        seeds = torch.randint(2**31, (count,), generator=generator).tolist()
        return [self._said(text, steps, temperature=1.0, seed=seed) for seed in seeds]

    def shown(self, text: str) -> str:
        """A text with its words and marks parted by spaces, so that marks make no words of their own."""
        return " ".join(re.findall(r"\w+|[^\w\s]", text))

    def _said(self, text: str, steps: int, *, temperature: float, seed: int) -> str:
        self.rows += 1
        asked = {"model": self.served, "messages": [{"role": "user", "content": text}], "max_tokens": steps}
        found = self.client.ask({**asked, "temperature": temperature, "seed": seed})
        try:
            said = found["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise self._bad("an answer without the text of a first choice") from None
        if said is not None and not isinstance(said, str):
            raise self._bad("an answer that is no text")
        used = found.get("usage")
        total = used.get("total_tokens") if isinstance(used, dict) else None
        self.tokens += total if type(total) is int and 0 <= total < MOST_TOKENS else 0
        # JSON may hold halves of surrogate pairs, which no file can.
        return self.shown((said or "")[: LONGEST * steps].encode("utf-8", "replace").decode())

    def _bad(self, what: str) -> EndpointError:
        return EndpointError(f"'{self.name}' gave {what}", hint=HINT)
