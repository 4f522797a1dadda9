"""Chat templates are programs in Jinja; those that reach for more than the conversation are refused."""

import json
from collections.abc import Iterator

from ostiary.provenance.refusal import Reason

MAX_TEMPLATE = 2**20


def template_reasons(name: str, data: bytes) -> list[Reason]:
    """Reasons (OS766) against the templates in `chat_template.jinja`, or under `chat_template` in a JSON file.

    A template is read and never rendered. What begins with an underscore leads from any value to the interpreter,
    and what includes, imports or extends reads other files; no template of a conversation needs either.
    """
    return [reason for text in _templates(name, data) if (reason := _reason(name, text)) is not None]


def _templates(name: str, data: bytes) -> Iterator[str]:
    if name.endswith((".jinja", ".jinja2", ".j2")):
        yield data.decode(errors="replace")
        return
    if not name.endswith(".json") or (b"chat_template" not in data and b"\\u" not in data):
        return
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    given = found.get("chat_template") if isinstance(found, dict) else None
    for one in given if isinstance(given, list) else [given]:
        text = one.get("template") if isinstance(one, dict) else one
        if isinstance(text, str):
            yield text


def _reason(name: str, text: str) -> Reason | None:
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(text) > MAX_TEMPLATE:
        return Reason("OS766", name, f"a template of more than {MAX_TEMPLATE} characters")
    # The extensions that transformers reads templates with.
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        # `generation` marks what a model says; to Jinja itself it is unknown.
        tree = environment.parse(text.replace("{% generation", "{% if true").replace("{% endgeneration", "{% endif"))
    except (TemplateError, RecursionError) as error:
        return Reason("OS766", name, f"its template cannot be read: {str(error)[:80]}")
    for statement in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        return Reason("OS766", name, f"line {statement.lineno} of its template reads another file")
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Name, nodes.Const)):
        if (word := _private(node)) is not None:
            return Reason("OS766", name, f"line {node.lineno} of its template reaches for {word[:40]!r}")
    return None


def _private(node: object) -> str | None:
    """The word of a node that begins with two underscores, or that an attribute begins with one; None for others."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr if node.attr.startswith("_") else None
    if isinstance(node, nodes.Const):
        return node.value if isinstance(node.value, str) and node.value.startswith("__") else None
    if isinstance(node, nodes.Filter):
        return "attr" if node.name == "attr" else None
    if isinstance(node, nodes.Name):
        return node.name if node.name.startswith("__") else None
    return None
