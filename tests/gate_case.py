"""What machines that gate read, held against its schema and its own counts."""

import json
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator


@cache
def validator() -> Draft7Validator:
    schema = json.loads((Path(__file__).parent / "schemas" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    return Draft7Validator(schema)


def run_of(text: str) -> dict[str, Any]:
    """The one run of a SARIF text, held against the schema."""
    log = json.loads(text.encode())
    validator().validate(log)
    (run,) = log["runs"]
    invocation = run["invocations"][0]
    empty_pass = invocation["executionSuccessful"] is False and not run["results"]
    assert not empty_pass, "what failed has to be a result"
    return run  # type: ignore[no-any-return]


def suite_of(text: str) -> ET.Element:
    """The one suite of a JUnit text, with its counts held against its cases."""
    root = ET.fromstring(text.encode())  # noqa: S314 - our own
    (suite,) = root
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(count, "-1")) == len(suite.findall(f"testcase/{tag}"))
    assert int(suite.get("tests", "-1")) == len(suite.findall("testcase"))
    return suite


def messages(run: dict[str, Any]) -> list[str]:
    return [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]
