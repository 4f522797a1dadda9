"""The template: what a chat template comes to, and those that cannot be taken apart."""

import pytest

from ostiary.core.errors import FormatError
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
