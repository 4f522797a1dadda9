"""Typed records of the parts of CycloneDX 1.6 and 1.7 that a model's BOM is made of.

Names and nesting are those of the official schema, of which only what is written here is modelled; the Python library
of CycloneDX 11.12 has no model card, component data, formulation, declarations or citations.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """Base of all parts: immutable, no unknown fields, written in the names of the schema, empty fields left out."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        alias_generator=lambda name: "bom-ref" if name == "bom_ref" else to_camel(name),
    )

    def to_value(self) -> dict[str, Any]:
        """The part as JSON's values, in the order of its fields."""
        found: dict[str, Any] = _full(self.model_dump(by_alias=True, mode="json"))
        return found


class Property(Part):
    """What the schema has no field for, under a name that begins with `ostiary:`."""

    name: str
    value: str


class Hash(Part):
    """A digest in hex."""

    alg: str
    content: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class Organization(Part):
    """Somebody, by name."""

    bom_ref: str | None = None
    name: str


class Licence(Part):
    """One licence, by its SPDX id or else by name."""

    id: str | None = None
    name: str | None = None


class LicenceChoice(Part):
    """A licence, or an expression over several."""

    license: Licence | None = None
    expression: str | None = None


class ExternalReference(Part):
    """Something elsewhere: a relative name or an address, never fetched."""

    url: str
    type: str
    comment: str | None = None
    hashes: tuple[Hash, ...] = ()


class Governance(Part):
    """Who owns a data set."""

    owners: tuple[dict[str, Organization], ...] = ()


class Contents(Part):
    """What is in a data set."""

    url: str | None = None
    properties: tuple[Property, ...] = ()


class Data(Part):
    """A data set: `component.data` of the schema."""

    type: Literal["dataset"] = "dataset"
    name: str
    contents: Contents | None = None
    classification: str | None = None
    sensitive_data: tuple[str, ...] = ()
    description: str | None = None
    governance: Governance | None = None


class Reference(Part):
    """A reference to another part by its bom-ref."""

    ref: str


class Approach(Part):
    """How a model learnt."""

    type: str


class Form(Part):
    """The form of an input or an output."""

    format: str


class ModelParameters(Part):
    """What a model is, and the data sets that it learnt from."""

    approach: Approach | None = None
    task: str | None = None
    architecture_family: str | None = None
    model_architecture: str | None = None
    datasets: tuple[Reference, ...] = ()
    inputs: tuple[Form, ...] = ()
    outputs: tuple[Form, ...] = ()


class ConfidenceInterval(Part):
    """Of 95 %."""

    lower_bound: str
    upper_bound: str


class Metric(Part):
    """One measured figure; `slice` says on what, and by which method."""

    type: str
    value: str
    slice: str | None = None
    confidence_interval: ConfidenceInterval | None = None


class Quantitative(Part):
    """All measured figures."""

    performance_metrics: tuple[Metric, ...] = ()


class Risk(Part):
    """An ethical consideration."""

    name: str
    mitigation_strategy: str | None = None


class Considerations(Part):
    """Whom a model is for, and what it cannot do."""

    users: tuple[str, ...] = ()
    use_cases: tuple[str, ...] = ()
    technical_limitations: tuple[str, ...] = ()
    performance_tradeoffs: tuple[str, ...] = ()
    ethical_considerations: tuple[Risk, ...] = ()


class ModelCard(Part):
    """What a model is, how it performs, what to consider."""

    model_parameters: ModelParameters | None = None
    quantitative_analysis: Quantitative | None = None
    considerations: Considerations | None = None
    properties: tuple[Property, ...] = ()


class Pedigree(Part):
    """What a component was made from."""

    ancestors: "tuple[Component, ...]" = ()


class Component(Part):
    """A model, a file, a data set, a library, a tool."""

    type: str
    bom_ref: str
    supplier: Organization | None = None
    name: str
    version: str | None = None
    description: str | None = None
    hashes: tuple[Hash, ...] = ()
    licenses: tuple[LicenceChoice, ...] = ()
    purl: str | None = None
    pedigree: Pedigree | None = None
    external_references: tuple[ExternalReference, ...] = ()
    components: "tuple[Component, ...]" = ()
    model_card: ModelCard | None = None
    data: tuple[Data, ...] = ()
    properties: tuple[Property, ...] = ()


class Dependency(Part):
    """What a part needs."""

    ref: str
    depends_on: tuple[str, ...] = ()


class Parameter(Part):
    """A setting of a task."""

    name: str
    value: str


class Input(Part):
    """What goes into a task: a part, or settings."""

    resource: Reference | None = None
    parameters: tuple[Parameter, ...] = ()


class Output(Part):
    """What comes out of a task."""

    type: Literal["artifact"] = "artifact"
    resource: Reference


class Workflow(Part):
    """One run that made something."""

    bom_ref: str
    uid: str
    name: str
    description: str | None = None
    task_types: tuple[str, ...]
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    time_start: str | None = None
    properties: tuple[Property, ...] = ()


class Formula(Part):
    """How a component came to be."""

    bom_ref: str
    workflows: tuple[Workflow, ...]


class Attachment(Part):
    """A text in place."""

    content_type: str = "text/plain"
    content: str


class Attached(Part):
    """The contents of a piece of evidence."""

    attachment: Attachment


class Datum(Part):
    """One named piece of evidence."""

    name: str
    contents: Attached


class Evidence(Part):
    """What a claim rests on, and until when."""

    bom_ref: str
    property_name: str
    description: str
    data: tuple[Datum, ...]
    created: str
    expires: str


class Claim(Part):
    """Something said of a target; counter-evidence speaks against the target."""

    bom_ref: str
    target: str
    predicate: str
    reasoning: str | None = None
    evidence: tuple[str, ...] = ()
    counter_evidence: tuple[str, ...] = ()


class Assessor(Part):
    """Who or what examined."""

    bom_ref: str
    third_party: bool
    organization: Organization


class AttestedClaims(Part):
    """Which claims an attestation takes up."""

    claims: tuple[str, ...] = ()
    counter_claims: tuple[str, ...] = ()


class Attestation(Part):
    """What an assessor says in sum."""

    summary: str
    assessor: str
    map: tuple[AttestedClaims, ...]


class Declarations(Part):
    """Claims with their evidence."""

    assessors: tuple[Assessor, ...]
    attestations: tuple[Attestation, ...]
    claims: tuple[Claim, ...]
    evidence: tuple[Evidence, ...]


class Lifecycle(Part):
    """When in a model's life the BOM was made."""

    phase: str


class Tools(Part):
    """What made the BOM."""

    components: tuple[Component, ...]


class Metadata(Part):
    """Of the BOM itself, and its subject."""

    timestamp: str
    lifecycles: tuple[Lifecycle, ...]
    tools: Tools
    authors: tuple[Organization, ...] = ()
    component: Component
    properties: tuple[Property, ...] = ()


class Citation(Part):
    """Where parts of the document come from (1.7)."""

    bom_ref: str
    pointers: tuple[str, ...]
    timestamp: str
    attributed_to: str
    note: str


class Document(Part):
    """The whole BOM."""

    bom_format: Literal["CycloneDX"] = "CycloneDX"
    spec_version: Literal["1.6", "1.7"]
    serial_number: str | None = None
    version: Literal[1] = 1
    metadata: Metadata
    components: tuple[Component, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    formulation: tuple[Formula, ...] = ()
    declarations: Declarations | None = None
    citations: tuple[Citation, ...] = ()


def _full(value: Any) -> Any:
    """A value without what is empty in it."""
    if isinstance(value, dict):
        inner = {key: _full(one) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one is not None and one not in ({}, [])}
    return [_full(one) for one in value] if isinstance(value, list) else value
