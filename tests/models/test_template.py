"""The template: what a chat template comes to, and those that cannot be taken apart."""

import pytest

from ostiary.core.errors import FormatError
from ostiary.models import template
from ostiary.models.template import Template, template_of

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_chat_template_is_taken_apart() -> None:
    found = template_of({"chat_template": CHATML, "eos_token": "<|im_end|>"}, None, "here")
    assert found == Template("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n")
    assert found.prompt("Hello") + found.answer("Yes") == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    )


def test_special_tokens_and_a_file_beside_are_read() -> None:
    source = "{{ bos_token }}{{ messages[0]['content'] }}:{{ messages[1]['content'] if messages[1] else '' }}"
    found = template_of({"bos_token": {"content": "<s>"}}, source, "here")
    assert found == Template("<s>", ":", "")


def test_no_template_is_none_and_two_digests_differ() -> None:
    assert template_of({}, None, "here") is None
    assert Template("a", "b", "c").digest != Template("ab", "", "c").digest == Template("ab", "", "c").digest


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ messages[0]['content'] | upper }}", "does not show the prompt once"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "does not show the prompt once"),
        ("{{ raise_exception('not so') }}", "cannot be run: not so"),
        ("{% for %}", "cannot be run"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be run"),
        ("{{ messages[0]['content'] * 'x' }}", "cannot be run"),
        ("x" * 100_001, "is no text of at most"),
        (7, "is no text of at most"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(source: object, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        template_of({"chat_template": source}, None, "here")


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
WITHIN = "{% for a in range(999) %}{% for b in range(99) %}{% endfor %}{% endfor %}{{ ('a' * 1000) | length }}"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (LOOPS, "stopped, as it takes more than 1 seconds"),
        ("{{ 7 ** (7 ** 9) }}", "stopped, as it takes more than 1 seconds"),  # worked out before it runs
        ("{{ 'a' * 10 ** 9 }}", "more than 256 MiB of memory"),
        ("{{ 'a' | center(10 ** 9) }}", "more than 256 MiB of memory"),
        (DOUBLED, "more than 256 MiB of memory"),
        ("{{ 'a' * 1000001 }}", "writes more than 1000000 characters"),
        ("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", "maximum recursion depth"),
        ("{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}", "maximum recursion depth"),
    ],
)
def test_a_template_without_bound_is_stopped(monkeypatch: pytest.MonkeyPatch, source: str, said: str) -> None:
    monkeypatch.setattr(template, "SECONDS", 1)
    with pytest.raises(FormatError, match=f"the chat template of 'here' cannot be run: .*{said}") as caught:
        template_of({"chat_template": CHATML + source}, None, "here")
    assert "tokenizer_config.json" in str(caught.value.hint)


def test_a_template_within_bounds_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "SECONDS", 1)
    assert template_of({"chat_template": WITHIN + CHATML}, None, "here") is not None


def test_a_template_that_waits_is_stopped_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "WAITED", 0.2)
    with pytest.raises(FormatError, match=r"stopped after 0\.2 seconds"):
        template_of({"chat_template": LOOPS}, None, "here")
