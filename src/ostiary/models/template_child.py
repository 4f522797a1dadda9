"""The child process that runs a chat template: bounded in time and memory, without network and without files.

It gets an order as JSON on stdin and answers with JSON on stdout.
"""

import json
import sys
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ostiary.provenance import confine


def main() -> None:
    """Render the template of the order with each list of messages, and print what comes out, or the error."""
    order = json.loads(sys.stdin.read())
    confine.leave_network()
    confine.hide_files()
    confine.limit(order["memory"], 0, order["seconds"])
    try:
        answer: dict[str, Any] = {"rendered": _rendered(order)}
    except MemoryError:
        answer = {"error": f"it takes more than {order['memory'] >> 20} MiB of memory"}
    except Exception as error:  # noqa: BLE001 - whatever a template of a stranger raises is the reason of the refusal
        text = str(error).partition("\n")[0] or type(error).__name__
        answer = {"error": text[:500]}
    sys.stdout.write(json.dumps(answer))


def _rendered(order: dict[str, Any]) -> list[str]:
    made = _environment().from_string(order["source"])
    found = []
    for turn in order["turns"]:
        text = made.render(**turn, **order["tokens"])
        if len(text) > order["most"]:
            raise TemplateError(f"it writes more than {order['most']} characters around one turn")
        found.append(text)
    return found


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.globals["raise_exception"] = _refuse
    made.filters["tojson"] = json.dumps
    return made


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


if __name__ == "__main__":
    main()
