"""What the schema of CycloneDX does not check: that every reference leads somewhere, once, and to the right thing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ostiary.provenance.bom.document import MODEL, ROOT, Bom, prop
from ostiary.provenance.refusal import Reason

ANYWHERE = frozenset({"ref", "dependsOn", "provides", "patentRefs", "asserter", "cryptoRefArray"})
ANYWHERE |= {"algorithmRef", "signatureAlgorithmRef", "subjectPublicKeyRef"}
"""Keys that hold references wherever they stand."""
INSIDE = (("identity", "tools"), ("cipherSuites", "algorithms"), ("patents", "members"))
"""Keys that hold references inside of others. The algorithms in tables of IKEv2 are not looked at."""
PLACES: dict[tuple[str, ...], str | None] = {
    ("compositions", "*", "assemblies"): None,
    ("compositions", "*", "dependencies"): None,
    ("compositions", "*", "vulnerabilities"): "vulnerabilities",
    ("annotations", "*", "subjects"): None,
    ("citations", "*", "attributedTo"): None,
    ("citations", "*", "process"): None,
    ("declarations", "attestations", "*", "assessor"): "declarations/assessors",
    ("declarations", "attestations", "*", "map", "*", "requirement"): "definitions",
    ("declarations", "attestations", "*", "map", "*", "claims"): "declarations/claims",
    ("declarations", "attestations", "*", "map", "*", "counterClaims"): "declarations/claims",
    ("declarations", "attestations", "*", "map", "*", "conformance", "mitigationStrategies"): "declarations/evidence",
    ("declarations", "claims", "*", "target"): None,
    ("declarations", "claims", "*", "mitigationStrategies"): "declarations/evidence",
    ("declarations", "claims", "*", "evidence"): "declarations/evidence",
    ("declarations", "claims", "*", "counterEvidence"): "declarations/evidence",
    ("definitions", "standards", "*", "requirements", "*", "parent"): "definitions",
    ("definitions", "standards", "*", "levels", "*", "requirements"): "definitions",
}
"""Further places of references, by the way to them, and the part of the document where their targets must stand."""
ELSEWHERE = "urn:cdx:"
"""How a reference into another BOM begins; what it names cannot be looked up offline."""
DATA = ("data", "dataset")

Found = tuple[tuple[str, ...], str]
"""A text and the way to it, list positions as digits."""


def reference_reasons(bom: Bom, where: str) -> list[Reason]:
    """Names given twice (OS790), references that lead nowhere or to a thing of another kind (OS791), cycles (OS792)."""
    told, used, pointers = _collect(bom.value)
    targets = {ref: path for path, ref in told}
    counts = Counter(ref for _, ref in told)
    twice = [Reason("OS790", where, f"{ref[:120]!r} names {n} parts") for ref, n in counts.items() if n > 1]
    dangling = [reason for one in used if (reason := _dangling(bom, one, targets, where))]
    dangling += [
        Reason("OS791", where, f"{_pointer(path)} cites {text[:120]!r}, where nothing stands")
        for path, text in pointers
        if not _stands(bom.value, text)
    ]
    return twice + dangling + _cycles(bom, targets, where)


def _collect(document: Mapping[str, Any]) -> tuple[list[Found], list[Found], list[Found]]:
    """All names of parts, all references, and all JSON pointers of citations."""
    told, used, pointers = [], [], []
    for path, text in _texts(document, ()):
        way = _way(path)
        names = tuple(part for part in way if part != "*")
        if names[-1] == "bom-ref":
            told.append((path, text))
        elif way[:3] == ("citations", "*", "pointers"):
            pointers.append((path, text))
        elif names[-1] in ANYWHERE or names[-2:] in INSIDE or way in PLACES:
            used.append((path, text))
    return told, used, pointers


def _way(path: tuple[str, ...]) -> tuple[str, ...]:
    """A path with `*` for every place in a list, but for that of a text in a list of texts."""
    way = tuple("*" if part.isdigit() else part for part in path)
    return way[:-1] if way[-1] == "*" else way


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[Found]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, (*path, str(key)))


def _dangling(bom: Bom, one: Found, targets: Mapping[str, tuple[str, ...]], where: str) -> Reason | None:
    path, ref = one
    if ref.startswith(ELSEWHERE):
        serial, _, part = ref.removeprefix(ELSEWHERE).partition("#")
        own = str(bom.value.get("serialNumber", "")).removeprefix("urn:uuid:")
        if not own or serial.partition("/")[0] != own:
            return None
        ref = part
    if ref not in targets:
        return Reason("OS791", where, f"{_pointer(path)} refers to {ref[:120]!r}, which is nowhere")
    target = targets[ref][:-1]
    kind = PLACES.get(_way(path))
    wrong = kind is not None and "/".join(target[: kind.count("/") + 1]) != kind
    if "datasets" in path and _at(bom.value, target).get("type") not in DATA:
        wrong = True
    if not wrong:
        return None
    return Reason("OS791", where, f"{_pointer(path)} refers to {ref[:120]!r}, which is a thing of another kind")


def _cycles(bom: Bom, targets: Mapping[str, tuple[str, ...]], where: str) -> list[Reason]:
    """Parts that need themselves: models, data and tasks at any distance, others directly.

    Packages that need each other exist; a model made of itself does not.
    """
    graph = {one["ref"]: one.get("dependsOn", []) for one in bom.value.get("dependencies", [])}
    made = {ref for ref, path in targets.items() if _at(bom.value, path[:-1]).get("type") in (*DATA, MODEL)}
    found = [ref for ref in graph if ref in graph[ref]]
    found += [ref for ref in _looped(graph) if ref in made and ref not in found]
    for formula in bom.value.get("formulation", []):
        for flow in formula.get("workflows", []):
            tasks = {one["ref"]: one.get("dependsOn", []) for one in flow.get("taskDependencies", [])}
            found += _looped(tasks)
    reasons = [Reason("OS792", where, f"{ref[:120]!r} depends on itself") for ref in found]
    for pointer, one in bom.components:
        root = prop(one, ROOT)
        ancestors = one.get("pedigree", {}).get("ancestors", [])
        if root and any(prop(old, ROOT) == root for old in ancestors):
            reasons.append(Reason("OS792", where, f"{pointer} is an ancestor of itself: the root is the same"))
    return reasons


def _looped(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """The nodes that lie on a cycle of two or more: Kosaraju's strongly connected components."""
    edges = {node: [to for to in graph[node] if to in graph] for node in graph}
    turned: dict[str, list[str]] = {node: [] for node in graph}
    for node, to in edges.items():
        for other in to:
            turned[other].append(node)
    seen: set[str] = set()
    order = [node for start in edges if start not in seen for node in _reached(edges, start, seen)]
    seen = set()
    groups = [_reached(turned, start, seen) for start in reversed(order) if start not in seen]
    return [node for group in groups if len(group) > 1 for node in group]


def _reached(graph: Mapping[str, Sequence[str]], start: str, seen: set[str]) -> list[str]:
    """What is reached from a node and not yet seen, in the order in which a search in depth leaves it."""
    order, stack = [], [(start, iter(graph[start]))]
    seen.add(start)
    while stack:
        node, rest = stack[-1]
        step = next((to for to in rest if to not in seen), None)
        if step is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(step)
            stack.append((step, iter(graph[step])))
    return order


def _at(document: Any, path: Sequence[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document if isinstance(document, dict) else {}


def _stands(document: Any, pointer: str) -> bool:
    """Whether a JSON pointer (RFC 6901) leads to something."""
    if pointer and not pointer.startswith("/"):
        return False
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isascii() and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return False
    return True


def _pointer(path: Sequence[str]) -> str:
    return "".join(f"/{part}" for part in path)[:200]
