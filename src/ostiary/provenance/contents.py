"""What the files of a model hold, judged by their bytes before anything is made of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ostiary.provenance.files import shown
from ostiary.provenance.pickles import Inspection, inspect_bytes
from ostiary.provenance.policy import Rules
from ostiary.provenance.refusal import Reason
from ostiary.provenance.templates import template_reasons

TORCH = ("torch", "torch (old layout)")
WEIGHTS = {"safetensors": "safetensors", **dict.fromkeys(TORCH, "weights-only")}
"""Formats of weights, by what the inspection of a file calls them, as policies name them."""
NEITHER = ("unknown", "empty")
ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Contents:
    """Every reason against the files of a model, and which of them are checkpoints of torch."""

    reasons: list[Reason]
    checkpoints: tuple[str, ...]


def inspect_all(files: Mapping[str, memoryview], name: str, rules: Rules, *, has_base: bool) -> Contents:
    """Look at all files of the model `name`, each once.

    Formats that the rules leave out (OS760), what the inspection of files refuses (OS110 to OS149), code that the
    model wants run (OS761), files that are too large (OS764), an adapter without its base (OS765), templates that
    reach for more than the conversation (OS766).
    """
    found = {file: inspect_bytes(data, file) for file, data in files.items()}
    reasons = [reason for file, data in files.items() for reason in _of_file(file, data, found[file], name, rules)]
    if any(PurePosixPath(file).name == ADAPTER for file in files) and not has_base:
        reasons.append(Reason("OS765", ADAPTER, "an adapter is half a model, and its base was not verified with it"))
    return Contents(reasons, tuple(file for file, one in found.items() if one.format in TORCH))


def _of_file(file: str, data: memoryview, found: Inspection, name: str, rules: Rules) -> Iterator[Reason]:
    if found.format in WEIGHTS:
        yield from found.reasons
        if WEIGHTS[found.format] not in rules.formats:
            allowed = " and ".join(rules.formats)
            yield Reason("OS760", shown(file), f"it holds weights as {found.format}; the policy allows {allowed}")
        return
    if found.format not in NEITHER:
        yield from found.reasons
        yield Reason("OS760", shown(file), f"it is {found.format}, which no policy allows")
        return
    if file.endswith(".safetensors"):
        yield Reason("OS110", shown(file), "named .safetensors, and it is not")
    if len(data) > rules.limits.max_other_bytes:
        yield Reason("OS764", shown(file), f"{len(data)} bytes that are no weights")
        return
    if file.endswith((".json", ".jinja", ".jinja2", ".j2")):
        yield from template_reasons(file, bytes(data))
    if file.endswith(".json") and name not in rules.remote_code and _wants_code(bytes(data)):
        yield Reason("OS761", shown(file), "it wants code of its own to be run (auto_map)")


def _wants_code(data: bytes) -> bool:
    """Whether `auto_map` stands as a key anywhere in a JSON text; where it cannot be read, whether the word does."""
    if b"auto_map" not in data and b"\\u" not in data:
        return False
    try:
        return _has_key(json.loads(data), "auto_map")
    except (ValueError, RecursionError):
        return True


def _has_key(value: object, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_has_key(inner, key) for inner in value.values())
    return isinstance(value, list) and any(_has_key(inner, key) for inner in value)
