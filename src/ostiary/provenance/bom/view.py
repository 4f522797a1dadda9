"""A BOM as lines for a terminal. Everything in it is a stranger's text: whoever prints must escape it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from ostiary.provenance.bom.check import SIZE, check
from ostiary.provenance.bom.complete import completeness
from ostiary.provenance.bom.document import ROOT, Bom, Component, prop
from ostiary.provenance.bom.schema import moment

MOST = 20
"""Lines of one kind; more are counted."""
LONGEST = 500
"""Letters of a line."""
WIDTH = 10


def lines_of(bom: Bom, *, now: datetime | None = None) -> list[str]:
    """What a BOM says: subject, files, origin, data, training, figures, verdicts, limits, libraries, completeness."""
    now = now or datetime.now(UTC)
    found = list(_head(bom))
    for _, one in bom.models:
        found += ["", *_model(one)]
    parts: list[tuple[str, Sequence[str]]] = [
        ("data", [_data(one) for _, one in bom.data_sets]),
        ("training", [_flow(flow) for formula in _list(bom, "formulation") for flow in formula.get("workflows", [])]),
        ("metrics", [_metric(one) for _, model in bom.models for one in _metrics(model)]),
        ("limits", [text for _, model in bom.models for text in _considered(model, "technicalLimitations")]),
        ("verdict", list(_verdicts(bom, now))),
        ("libraries", [_library(one) for _, one in bom.components if one["type"] == "library"]),
        ("complete", list(_complete(bom, now))),
    ]
    for name, rows in parts:
        found += ["", *_block(name, rows)] if rows else []
    wrong = check(bom, now=now)
    return [*found, "", *_block("wrong", [str(one) for one in wrong])] if wrong else found


def _block(name: str, rows: Sequence[str]) -> Iterator[str]:
    for number, row in enumerate(islice(rows, MOST)):
        yield f"{'' if number else name:<{WIDTH}} {row[:LONGEST]}"
    if len(rows) > MOST:
        yield f"{'':<{WIDTH}} and {len(rows) - MOST} more"


def _list(bom: Bom, key: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = bom.value.get(key, [])
    return found


def _head(bom: Bom) -> Iterator[str]:
    metadata = bom.value.get("metadata", {})
    tools = metadata.get("tools", {})
    tools = tools.get("components", []) if isinstance(tools, dict) else tools
    authors = ", ".join(one.get("name", "") for one in metadata.get("authors", []))
    yield f"{'bom':<{WIDTH}} CycloneDX {bom.version}  {bom.value.get('serialNumber', 'without a serial number')}"
    made = ", ".join(f"{one.get('name', '')} {one.get('version', '')}".strip() for one in tools)
    yield f"{'made':<{WIDTH}} {metadata.get('timestamp', 'at no told time')} with {made or 'no told tool'}"
    yield f"{'author':<{WIDTH}} {authors or 'not told'}"


def _model(one: Component) -> Iterator[str]:
    parameters = one.get("modelCard", {}).get("modelParameters", {})
    made = parameters.get("modelArchitecture") or parameters.get("architectureFamily") or "not told"
    card = one.get("modelCard", {})
    numbers = prop(card, "ostiary:parameters")
    yield from _block("model", [f"{one['name']}  version {one.get('version', 'not told')}"])
    yield from _block("kind", [f"{made}, {numbers} parameters" if numbers else str(made)])
    yield from _block("supplier", [str(one.get("supplier", {}).get("name", "not told"))])
    yield from _block("licence", [_licences(one) or "not told"])
    yield from _block("root", [prop(one, ROOT) or "not told"])
    files = [part for part in one.get("components", []) if part["type"] == "file"]
    yield from _block("files", [_file(part) for part in files] or ["not told"])
    for old in one.get("pedigree", {}).get("ancestors", []):
        yield from _block("made from", [f"{old['name']}  {prop(old, ROOT) or 'no root'}"])
    for link in one.get("externalReferences", []):
        yield from _block(str(link["type"])[:WIDTH], [f"{link['url']}  {link.get('comment', '')}".rstrip()])


def _licences(one: Component) -> str:
    choices = [choice.get("license", choice) for choice in one.get("licenses", [])]
    return ", ".join(str(c.get("id") or c.get("name") or c.get("expression")) for c in choices)


def _file(one: Component) -> str:
    digest = next((hash_["content"] for hash_ in one.get("hashes", []) if hash_["alg"] == "SHA-256"), "no SHA-256")
    return f"{digest:<64}  {prop(one, SIZE) or '-':>12}  {one['name']}"


def _data(one: Component) -> str:
    told = [f"{prop(one, 'ostiary:samples')} samples" if prop(one, "ostiary:samples") else ""]
    told += [
        prop(one, "ostiary:role") or "",
        _licences(one),
        f"root {prop(one, ROOT)}" if prop(one, ROOT) else "no root",
    ]
    return "  ".join([one["name"], *(text for text in told if text)])


def _flow(one: Mapping[str, Any]) -> str:
    inputs = one.get("inputs", [])
    refs = [part["resource"]["ref"] for part in inputs if "ref" in part.get("resource", {})]
    settings = [f"{p.get('name')} {p.get('value')}" for part in inputs for p in part.get("parameters", [])]
    on = f"on {', '.join(refs)}" if refs else ""
    return "  ".join(part for part in (f"{one.get('name', '')} {one['uid']}", on, ", ".join(settings)) if part)


def _metrics(one: Component) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (
        one.get("modelCard", {}).get("quantitativeAnalysis", {}).get("performanceMetrics", [])
    )
    return found


def _metric(one: Mapping[str, Any]) -> str:
    between = one.get("confidenceInterval")
    interval = f" [{between.get('lowerBound')}, {between.get('upperBound')}]" if between else ""
    return f"{one.get('type', '')}: {one.get('value', '')}{interval}  {one.get('slice', '')}".rstrip()


def _considered(one: Component, key: str) -> Sequence[str]:
    found: Sequence[str] = one.get("modelCard", {}).get("considerations", {}).get(key, [])
    return found


def _verdicts(bom: Bom, now: datetime) -> Iterator[str]:
    declared = bom.value.get("declarations", {})
    evidence = {one.get("bom-ref"): one for one in declared.get("evidence", [])}
    for claim in declared.get("claims", []):
        yield str(claim.get("predicate", ""))
        for word, key in (("evidence", "evidence"), ("against", "counterEvidence")):
            for ref in claim.get(key, []):
                one = evidence.get(ref, {})
                expires = moment(one.get("expires"))
                late = ", EXPIRED" if expires is not None and expires <= now else ""
                yield f"  {word}: {one.get('description', ref)} (until {one.get('expires', 'no told day')}{late})"
    if not declared.get("claims") and bom.models:
        yield "not told: the BOM claims no examination for backdoors"


def _library(one: Component) -> str:
    return f"{one['name']} {one.get('version', '')}  {_licences(one)}".rstrip()


def _complete(bom: Bom, now: datetime) -> Iterator[str]:
    found = completeness(bom, now=now)
    yield f"level {found.level or 'below minimum'}; the seven clusters of the G7's minimum elements:"
    for cluster in dict.fromkeys(one.cluster for one in found.elements):
        rows = [one for one in found.elements if one.cluster == cluster]
        absent = [f"{one.name}{'*' if one.minimum else ''}" for one in rows if one.where is None]
        text = f"absent: {', '.join(absent)}" if absent else "all present"
        yield f"  {cluster:<15} {len(rows) - len(absent):>2} of {len(rows):>2}  {text}"
    yield "  * asked for by the level minimum"
