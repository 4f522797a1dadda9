"""A BOM in CycloneDX out of what is known of a model: the same facts give the same bytes."""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from ostiary import __version__
from ostiary.core.errors import ConfigError
from ostiary.core.records import Record
from ostiary.provenance import strict
from ostiary.provenance.bom import evidence
from ostiary.provenance.bom import records as cdx
from ostiary.provenance.bom.card import DataCard, ModelCardFile
from ostiary.provenance.bom.check import EMPTY, SIZE
from ostiary.provenance.bom.complete import MADE, SECURITY, SYSTEM
from ostiary.provenance.bom.document import DIGEST, MODEL, ROOT
from ostiary.provenance.bom.environment import Library
from ostiary.provenance.bom.evidence import MODEL_REF
from ostiary.provenance.bom.facts import Ancestor, Beside, DataSet, ModelFacts
from ostiary.provenance.bom.schema import licence_ids
from ostiary.provenance.manifest import FileDigest, Manifest

SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "ostiary:bom")
"""Serial numbers are UUIDs of version 5 of the contents under this name space."""
TOOL, AUTHOR = "tool:ostiary", "party:author"
OMS_ROOT, WEIGHTS, ROLE = "ostiary:omsRoot", "ostiary:weights", "ostiary:role"


@dataclass(frozen=True)
class Facts:
    """All that a BOM is made of. `weights` is the digest that `records` have of the model, None without records.

    `created` is the moment of the BOM in RFC 3339; `days` how long the evidence of a record counts.
    """

    model: ModelFacts
    beside: Beside
    card: ModelCardFile
    created: str
    records: tuple[Record, ...] = ()
    weights: str | None = None
    days: int = 90

    @property
    def sets(self) -> tuple[DataSet, ...]:
        """The data sets, those of the records among them."""
        return evidence.data_sets(self.records, self.beside.data)


def to_bytes(document: cdx.Document) -> bytes:
    """The document as JSON text."""
    return json.dumps(document.to_value(), indent=2, ensure_ascii=False).encode() + b"\n"


def make_bom(facts: Facts, version: Literal["1.6", "1.7"]) -> cdx.Document:
    """The BOM of a model, its serial number a function of all the rest.

    Raises ConfigError for a card about a data set that is not given, or two ancestors of one name.
    """
    sets, weights = facts.sets, facts.weights or ""
    _check(facts, sets)
    flows = evidence.workflows(facts.records, sets, weights)
    who = facts.card.author or f"ostiary {__version__}"
    libraries = facts.beside.libraries
    document = cdx.Document(
        spec_version=version,
        metadata=_metadata(facts, sets),
        components=(*(_data(one, facts.card.data.get(one.name)) for one in sets), *map(_library, libraries)),
        dependencies=tuple(_dependencies(facts, sets)),
        formulation=(cdx.Formula(bom_ref="formulation", workflows=flows),) if flows else (),
        declarations=evidence.declarations(facts.records, weights, facts.days, who),
    )
    if version == "1.7":
        document = document.model_copy(update={"citations": tuple(_citations(facts, document.to_value()))})
    serial = f"urn:uuid:{uuid.uuid5(SPACE, strict.canonical(document.to_value()).decode())}"
    return document.model_copy(update={"serial_number": serial})


def licences(text: str | None) -> tuple[cdx.LicenceChoice, ...]:
    """A licence by its id in the SPDX list, as an expression over several, or by name."""
    if text is None:
        return ()
    if text in licence_ids():
        return (cdx.LicenceChoice(license=cdx.Licence(id=text)),)
    if any(f" {word} " in text for word in ("AND", "OR", "WITH")):
        return (cdx.LicenceChoice(expression=text),)
    return (cdx.LicenceChoice(license=cdx.Licence(name=text)),)


def properties(pairs: Iterable[tuple[str, Any]]) -> tuple[cdx.Property, ...]:
    """Properties of those pairs that have a value."""
    return tuple(cdx.Property(name=name, value=str(value)) for name, value in pairs if value not in (None, ""))


def _check(facts: Facts, sets: Sequence[DataSet]) -> None:
    known = [one.name for one in sets]
    if unknown := sorted(set(facts.card.data) - set(known)):
        hint = f"the sets are {', '.join(known)}" if known else "give it with --data"
        raise ConfigError(f"the card tells of the data set '{unknown[0]}', which is not in the BOM", hint=hint)
    names = [(one.role, one.name) for one in facts.beside.ancestors]
    if len(set(names)) < len(names):
        raise ConfigError("two bases or adapters have one name", hint="give their folders different names")


def _metadata(facts: Facts, sets: Sequence[DataSet]) -> cdx.Metadata:
    card = facts.card
    tool = cdx.Component(type="application", bom_ref=TOOL, name="ostiary", version=__version__)
    told = [(SYSTEM, card.system), (SECURITY, card.security)]
    rows = [(f"{start}{key.replace('_', '-')}", value) for start, part in told for key, value in part]
    return cdx.Metadata(
        timestamp=facts.created,
        lifecycles=(cdx.Lifecycle(phase="post-build"),),
        tools=cdx.Tools(components=(tool,)),
        authors=(cdx.Organization(bom_ref=AUTHOR, name=card.author),) if card.author else (),
        component=_model(facts, sets),
        properties=properties(rows),
    )


def _model(facts: Facts, sets: Sequence[DataSet]) -> cdx.Component:
    model, card = facts.model, facts.card
    links = [
        cdx.ExternalReference(
            url=quote(one.name),
            type="attestation",
            comment=f"{one.kind or 'a statement of another form'}; not verified when this BOM was made",
            hashes=(cdx.Hash(alg="SHA-256", content=one.sha256),),
        )
        for one in facts.beside.attestations
    ]
    links += [cdx.ExternalReference(url=one.url, type=one.type, comment=one.comment) for one in card.link]
    ancestors = tuple(_ancestor(one) for one in facts.beside.ancestors)
    made = [one.created for one in facts.records if one.kind in evidence.MAKING]
    files = model.manifest.files
    return cdx.Component(
        type=MODEL,
        bom_ref=MODEL_REF,
        supplier=cdx.Organization(name=card.supplier) if card.supplier else None,
        name=model.name,
        version=card.version,
        description=card.description,
        hashes=(_hash(files[0]),) if len(files) == 1 else (),
        licenses=licences(card.licence),
        pedigree=cdx.Pedigree(ancestors=ancestors) if ancestors else None,
        external_references=tuple(links),
        components=_files(model.manifest, "file:"),
        model_card=_model_card(facts, sets),
        properties=(
            *_roots(model.manifest),
            *properties([(WEIGHTS, facts.weights), (MADE, card.created or max(made, default=None))]),
        ),
    )


def _model_card(facts: Facts, sets: Sequence[DataSet]) -> cdx.ModelCard:
    model, card = facts.model, facts.card
    weights = facts.weights or ""
    labelled = any(one.kind in ("train", "harden") and one.coverage.classes for one in facts.records)
    approach = card.approach or ("supervised" if labelled else None)
    shape = model.metadata.get("input") if "ostiary" in model.metadata else None
    inputs = card.inputs or ((f"image {shape}",) if shape else ())
    return cdx.ModelCard(
        model_parameters=cdx.ModelParameters(
            approach=cdx.Approach(type=approach) if approach else None,
            task=card.task,
            architecture_family=model.family,
            model_architecture=model.architecture,
            datasets=tuple(cdx.Reference(ref=f"data:{one.name}") for one in sets if one.role == "training"),
            inputs=tuple(cdx.Form(format=text) for text in inputs),
            outputs=tuple(cdx.Form(format=text) for text in card.outputs),
        ),
        quantitative_analysis=cdx.Quantitative(performance_metrics=evidence.metrics(facts.records, weights)),
        considerations=cdx.Considerations(
            users=card.users,
            use_cases=card.use_cases,
            technical_limitations=(*card.limitations, *evidence.limitations(facts.records, weights)),
            performance_tradeoffs=card.tradeoffs,
            ethical_considerations=tuple(
                cdx.Risk(name=one.name, mitigation_strategy=one.mitigation) for one in card.ethical
            ),
        ),
        properties=properties(
            [
                ("ostiary:parameters", model.parameters or None),
                ("ostiary:tensors", model.tensors or None),
                ("ostiary:dtypes", ", ".join(model.dtypes)),
            ]
        ),
    )


def _ancestor(one: Ancestor) -> cdx.Component:
    ref = f"{one.role}:{one.name}"
    return cdx.Component(
        type=MODEL,
        bom_ref=ref,
        name=one.name,
        components=() if one.manifest is None else _files(one.manifest, f"{ref}/file:"),
        properties=(
            *(properties([(ROOT, one.root)]) if one.manifest is None else _roots(one.manifest)),
            *properties([(ROLE, one.role)]),
        ),
    )


def _roots(manifest: Manifest) -> tuple[cdx.Property, ...]:
    empty = [(EMPTY, name) for name in manifest.empty_folders]
    return properties([(ROOT, manifest.root.hex()), (OMS_ROOT, manifest.oms_root.hex()), *empty])


def _files(manifest: Manifest, start: str) -> tuple[cdx.Component, ...]:
    return tuple(
        cdx.Component(
            type="file",
            bom_ref=f"{start}{file.path}",
            name=file.path,
            hashes=(_hash(file),),
            properties=properties([(SIZE, file.size)]),
        )
        for file in manifest.files
    )


def _hash(file: FileDigest) -> cdx.Hash:
    return cdx.Hash(alg="SHA-256", content=file.digest.hex())


def _data(one: DataSet, told: DataCard | None) -> cdx.Component:
    told = told or DataCard()
    owners = ({"organization": cdx.Organization(name=told.owner)},) if told.owner else ()
    rows = properties([("ostiary:samples", one.samples), (ROOT, one.root), (DIGEST, one.digest)])
    return cdx.Component(
        type="data",
        bom_ref=f"data:{one.name}",
        name=one.name,
        licenses=licences(told.licence),
        data=(
            cdx.Data(
                name=one.name,
                contents=cdx.Contents(url=told.url, properties=rows),
                classification=told.classification,
                sensitive_data=told.sensitive,
                description=told.description,
                governance=cdx.Governance(owners=owners) if owners else None,
            ),
        ),
        properties=(*rows, *properties([(ROLE, one.role)])),
    )


def _library(one: Library) -> cdx.Component:
    return cdx.Component(
        type="library",
        bom_ref=one.purl,
        name=one.name,
        version=one.version,
        licenses=licences(one.licence),
        purl=one.purl,
    )


def _dependencies(facts: Facts, sets: Sequence[DataSet]) -> Iterable[cdx.Dependency]:
    """What the model needs: what it was made of, and the libraries that no other library asked for."""
    refs = {one.name: one.purl for one in facts.beside.libraries}
    asked = {name for one in facts.beside.libraries for name in one.needs}
    tops = [refs[name] for name in refs if name not in asked]
    made_of = [f"{one.role}:{one.name}" for one in facts.beside.ancestors]
    made_of += [f"data:{one.name}" for one in sets if one.role == "training"]
    yield cdx.Dependency(ref=MODEL_REF, depends_on=tuple(made_of + tops))
    for one in facts.beside.libraries:
        yield cdx.Dependency(ref=one.purl, depends_on=tuple(refs[name] for name in one.needs))


def _citations(facts: Facts, document: dict[str, Any]) -> Iterable[cdx.Citation]:
    """Who says what: the tool of files and records, the author of the card."""
    subject = document["metadata"]["component"]
    found = [key for key in ("components", "pedigree", "properties") if key in subject]
    computed = [f"/metadata/component/{key}" for key in found]
    yield _cited("tool", TOOL, facts.created, computed, "computed from the files")
    parts = [f"/{key}" for key in ("formulation", "declarations") if key in document]
    if parts:
        yield _cited("records", TOOL, facts.created, parts, "taken from records of ostiary, which are named")
    said = [
        f"/metadata/component/{key}" for key in ("supplier", "version", "description", "licenses") if key in subject
    ]
    if facts.card.author and said:
        yield _cited("card", AUTHOR, facts.created, said, "said in a card, and not checked")


def _cited(name: str, who: str, when: str, pointers: Sequence[str], note: str) -> cdx.Citation:
    return cdx.Citation(
        bom_ref=f"citation:{name}", pointers=tuple(pointers), timestamp=when, attributed_to=who, note=note
    )
