"""The same BOM as SPDX 3.0.1 in JSON-LD, whose vocabulary says which data a model was trained and tested on.

Only the classes and fields used here are modelled. No conformance is claimed but to the profiles core and software:
those for AI and data sets ask for dates and places of download that no file tells.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from ostiary.core.errors import ConfigError
from ostiary.provenance.bom import records as cdx
from ostiary.provenance.bom.document import MODEL, ROOT

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
CREATION = "_:creation"
PREFIXES = ("ai_", "dataset_", "software_", "simplelicensing_")

RelationshipType = Literal[
    "contains", "trainedOn", "testedOn", "hasEvidence", "hasDeclaredLicense", "descendantOf", "dependsOn"
]


def _alias(name: str) -> str:
    if name == "id":
        return "@id"
    prefix = next((one for one in PREFIXES if name.startswith(one)), "")
    return prefix + to_camel(name.removeprefix(prefix).rstrip("_"))


class Node(BaseModel):
    """Base of all parts of the graph, written in the names of SPDX."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, alias_generator=_alias)

    type: str

    def to_value(self) -> dict[str, Any]:
        """The part as JSON's values, empty fields left out."""
        found = self.model_dump(by_alias=True, mode="json")
        return {key: _without_empty(one) for key, one in found.items() if one not in (None, [])}


class CreationInfo(Node):
    """Who made the document, with what, and when."""

    type: Literal["CreationInfo"] = "CreationInfo"
    id: str = CREATION
    spec_version: Literal["3.0.1"] = "3.0.1"
    created: str
    created_by: tuple[str, ...]
    created_using: tuple[str, ...]


class Entry(Node):
    """A key with its value."""

    type: Literal["DictionaryEntry"] = "DictionaryEntry"
    key: str
    value: str


class Digest(Node):
    """A digest of an element's bytes."""

    type: Literal["Hash"] = "Hash"
    algorithm: Literal["sha256"] = "sha256"
    hash_value: str


class Identifier(Node):
    """Another name of an element: our root."""

    type: Literal["ExternalIdentifier"] = "ExternalIdentifier"
    external_identifier_type: Literal["other"] = "other"
    identifier: str
    comment: str


class Element(Node):
    """Anything with an id: an agent, a tool, and what the classes below add fields to."""

    spdx_id: str
    creation_info: str = CREATION
    name: str | None = None
    description: str | None = None
    verified_using: tuple[Digest, ...] = ()
    external_identifier: tuple[Identifier, ...] = ()


class Package(Element):
    """A package of software."""

    type: Literal["software_Package", "ai_AIPackage", "dataset_DatasetPackage"] = "software_Package"
    supplied_by: str | None = None
    software_package_version: str | None = None
    software_package_url: str | None = None
    software_primary_purpose: str | None = None


class AIPackage(Package):
    """A model."""

    type: Literal["ai_AIPackage"] = "ai_AIPackage"
    software_primary_purpose: str = "model"
    ai_type_of_model: tuple[str, ...] = ()
    ai_domain: tuple[str, ...] = ()
    ai_hyperparameter: tuple[Entry, ...] = ()
    ai_information_about_training: str | None = None
    ai_information_about_application: str | None = None
    ai_limitation: str | None = None
    ai_metric: tuple[Entry, ...] = ()


class DatasetPackage(Package):
    """A data set."""

    type: Literal["dataset_DatasetPackage"] = "dataset_DatasetPackage"
    software_primary_purpose: str = "data"
    dataset_dataset_type: tuple[str, ...] = ("noAssertion",)
    dataset_dataset_size: int | None = None


class File(Element):
    """A file, or a piece of evidence."""

    type: Literal["software_File"] = "software_File"
    software_primary_purpose: str | None = None


class LicenceExpression(Element):
    """A licence."""

    type: Literal["simplelicensing_LicenseExpression"] = "simplelicensing_LicenseExpression"
    simplelicensing_license_expression: str


class Relationship(Element):
    """What one element has to do with others."""

    type: Literal["Relationship"] = "Relationship"
    from_: str
    relationship_type: RelationshipType
    to: tuple[str, ...]


class SpdxDocument(Element):
    """The document itself."""

    type: Literal["SpdxDocument"] = "SpdxDocument"
    profile_conformance: tuple[str, ...] = ("core", "software", "simpleLicensing")
    root_element: tuple[str, ...]
    element: tuple[str, ...]


def to_spdx(bom: cdx.Document) -> bytes:
    """The document as JSON-LD text; its ids are UUIDs of version 5 under the serial number of the BOM.

    Raises ConfigError for a BOM without a serial number.
    """
    if bom.serial_number is None:
        raise ConfigError("the BOM has no serial number to name its parts by")
    elements = list(_elements(bom, uuid.UUID(bom.serial_number)))
    space = uuid.UUID(bom.serial_number)
    document = SpdxDocument(
        spdx_id=_id(space, "document"),
        name=f"BOM of {bom.metadata.component.name}",
        root_element=(_id(space, bom.metadata.component.bom_ref),),
        element=tuple(one.spdx_id for one in elements),
    )
    created = CreationInfo(
        created=bom.metadata.timestamp,
        created_by=(_id(space, "author"),),
        created_using=(_id(space, "tool"),),
    )
    graph = [created, document, *elements]
    value = {"@context": CONTEXT, "@graph": [one.to_value() for one in graph]}
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _elements(bom: cdx.Document, space: uuid.UUID) -> Iterator[Element]:
    model, tool = bom.metadata.component, bom.metadata.tools.components[0]
    author = next((one.name for one in bom.metadata.authors), None)
    yield Element(type="Agent" if author else "SoftwareAgent", spdx_id=_id(space, "author"), name=author or tool.name)
    yield Element(type="Tool", spdx_id=_id(space, "tool"), name=f"{tool.name} {tool.version}")
    if model.supplier is not None:
        yield Element(type="Agent", spdx_id=_id(space, "supplier"), name=model.supplier.name)
    yield _model(bom, space)
    ancestors = () if model.pedigree is None else model.pedigree.ancestors
    for one in ancestors:
        yield AIPackage(spdx_id=_id(space, one.bom_ref), name=one.name, external_identifier=_named(one))
    sets = [one for one in bom.components if one.type == "data"]
    libraries = [one for one in bom.components if one.type == "library"]
    for one in sets:
        size = _property(one, "ostiary:samples")
        yield DatasetPackage(
            spdx_id=_id(space, one.bom_ref),
            name=one.name,
            description=one.data[0].description,
            external_identifier=_named(one),
            dataset_dataset_size=int(size) if size else None,
        )
    for one in libraries:
        yield Package(
            spdx_id=_id(space, one.bom_ref),
            name=one.name,
            software_package_version=one.version,
            software_package_url=one.purl,
            software_primary_purpose="library",
        )
    yield from _files(model, space)
    proofs = list(_evidence(bom, space))
    yield from proofs
    trained = [one.bom_ref for one in sets if _property(one, "ostiary:role") == "training"]
    tested = [one.bom_ref for one in sets if _property(one, "ostiary:role") == "testing"]
    needs = next((one.depends_on for one in bom.dependencies if one.ref == model.bom_ref), ())
    asked = set(needs) & {one.bom_ref for one in libraries}
    yield from _related(space, model.bom_ref, "contains", [one.bom_ref for one in model.components])
    yield from _related(space, model.bom_ref, "descendantOf", [one.bom_ref for one in ancestors])
    yield from _related(space, model.bom_ref, "trainedOn", trained)
    yield from _related(space, model.bom_ref, "testedOn", tested)
    yield from _related(space, model.bom_ref, "dependsOn", sorted(asked))
    yield from _evidenced(space, model.bom_ref, proofs)
    for one in (model, *sets):
        yield from _licensed(one, space)


def _model(bom: cdx.Document, space: uuid.UUID) -> AIPackage:
    model = bom.metadata.component
    card = model.model_card or cdx.ModelCard()
    parameters = card.model_parameters or cdx.ModelParameters()
    considerations = card.considerations or cdx.Considerations()
    figures = (card.quantitative_analysis or cdx.Quantitative()).performance_metrics
    flows = [flow for formula in bom.formulation for flow in formula.workflows]
    settings = [
        Entry(key=f"{flow.uid}: {one.name}", value=one.value)
        for flow in flows
        for part in flow.inputs
        for one in part.parameters
    ]
    kinds = (parameters.model_architecture, parameters.architecture_family)
    return AIPackage(
        spdx_id=_id(space, model.bom_ref),
        name=model.name,
        description=model.description,
        supplied_by=_id(space, "supplier") if model.supplier else None,
        software_package_version=model.version,
        verified_using=tuple(Digest(hash_value=one.content) for one in model.hashes),
        external_identifier=_named(model),
        ai_type_of_model=tuple(dict.fromkeys(one for one in kinds if one)),
        ai_domain=(parameters.task,) if parameters.task else (),
        ai_hyperparameter=tuple(settings),
        ai_information_about_training="\n".join(f"{f.name} {f.uid}: {f.description}" for f in flows) or None,
        ai_information_about_application="\n".join(considerations.use_cases) or None,
        ai_limitation="\n".join(considerations.technical_limitations) or None,
        ai_metric=tuple(Entry(key=f"{one.type} ({one.slice})", value=_figure(one)) for one in figures),
    )


def _figure(one: cdx.Metric) -> str:
    between = one.confidence_interval
    return one.value if between is None else f"{one.value} [{between.lower_bound}, {between.upper_bound}]"


def _files(model: cdx.Component, space: uuid.UUID) -> Iterator[File]:
    for one in model.components:
        digests = tuple(Digest(hash_value=digest.content) for digest in one.hashes)
        yield File(spdx_id=_id(space, one.bom_ref), name=one.name, verified_using=digests)


def _evidence(bom: cdx.Document, space: uuid.UUID) -> Iterator[File]:
    """Records of examinations and signed statements, as files that prove something."""
    told = () if bom.declarations is None else bom.declarations.evidence
    for one in told:
        digest = next(part.contents.attachment.content for part in one.data if part.name == "sha256 of the record")
        yield File(
            spdx_id=_id(space, one.bom_ref),
            name=one.bom_ref,
            description=f"{one.description}; expires {one.expires}",
            verified_using=(Digest(hash_value=digest),),
            software_primary_purpose="evidence",
        )
    for link in bom.metadata.component.external_references:
        if link.type == "attestation":
            yield File(
                spdx_id=_id(space, f"attestation:{link.hashes[0].content}"),
                name=link.url,
                description=link.comment,
                verified_using=(Digest(hash_value=link.hashes[0].content),),
                software_primary_purpose="evidence",
            )


def _evidenced(space: uuid.UUID, ref: str, proofs: Sequence[File]) -> Iterator[Relationship]:
    if proofs:
        yield Relationship(
            spdx_id=_id(space, f"{ref} hasEvidence"),
            from_=_id(space, ref),
            relationship_type="hasEvidence",
            to=tuple(one.spdx_id for one in proofs),
        )


def _licensed(one: cdx.Component, space: uuid.UUID) -> Iterator[Element]:
    for choice in one.licenses:
        licence = choice.license or cdx.Licence()
        text = choice.expression or licence.id
        if text is None:
            continue  # a name of no licence of SPDX is no expression
        yield LicenceExpression(spdx_id=_id(space, f"licence:{one.bom_ref}"), simplelicensing_license_expression=text)
        yield from _related(space, one.bom_ref, "hasDeclaredLicense", [f"licence:{one.bom_ref}"])


def _related(space: uuid.UUID, ref: str, kind: RelationshipType, to: Sequence[str]) -> Iterator[Relationship]:
    if to:
        yield Relationship(
            spdx_id=_id(space, f"{ref} {kind}"),
            from_=_id(space, ref),
            relationship_type=kind,
            to=tuple(_id(space, other) for other in to),
        )


def _named(one: cdx.Component) -> tuple[Identifier, ...]:
    root = _property(one, ROOT)
    what = "Ostiary's root over its files" if one.type == MODEL else "Ostiary's root over its samples"
    return (Identifier(identifier=f"{ROOT}:{root}", comment=what),) if root else ()


def _property(one: cdx.Component, name: str) -> str | None:
    return next((prop.value for prop in one.properties if prop.name == name), None)


def _id(space: uuid.UUID, ref: str) -> str:
    return f"urn:uuid:{uuid.uuid5(space, ref)}"


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(one) for key, one in value.items() if one not in (None, [])}
    return [_without_empty(one) for one in value] if isinstance(value, list) else value
