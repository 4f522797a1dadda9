"""The record of a run: what was asked, measured, decided. Frozen, JSON, unknown keys forbidden.

Records are the truth: reports, tables and indexes are built from them alone and can be built again
years later. Lists are present even when empty. No torch here, so that rendering a record is quick.
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from ostiary.core.rate import Frozen as Frozen  # noqa: PLC0414 - others take it from here
from ostiary.core.rate import Rate as Rate  # noqa: PLC0414 - others take it from here

SCHEMA_VERSION: Literal[1] = 1

Verdict = Literal["backdoor", "suspect", "none-found", "incomplete"]
Level = Literal["backdoor", "suspect", "note"]
Status = Literal["ok", "partial", "skipped", "failed"]
FormName = Literal["patch", "frequencies", "warp"]
Kind = Literal["scan", "screen", "repair", "guard", "harden", "train", "evaluate", "federated"]

SUBJECT = r"^(model|(class|layer|sample|client|file|phrase|pair):.+)$"


class Caution(Frozen):
    """Something that may make our own measurement invalid (codes OS9xx)."""

    code: str
    text: str


class ClassScore(Frozen):
    """One class as one method measured it; `score` None means unscored, which is not zero."""

    label: int
    score: float | None
    measures: dict[str, float] = Field(default_factory=dict)
    rates: dict[str, Rate] = Field(default_factory=dict)


class Candidate(Frozen):
    """A trigger that a search recovered.

    `target` is the class it leads to; None where it moves every class on by `shift`. `source` is the only class
    that it acts on, None for all. `size` depends on the `form`: the L1 norm of a patch's mask in pixels, the
    number of frequencies, the mean shift of a warp in pixels. Of patches, `mask` ([h, w] in [0, 1]) and `pattern`
    ([c, h, w] in [0, 1]) are kept out of the JSON; they are the artifacts `<artifact>-mask` and
    `<artifact>-pattern`, in row `row`. Of other forms `parts` are what `scan.forms` lays over images, kept in the
    artifacts `<artifact>-part0` and on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    subject: Annotated[str, Field(pattern=SUBJECT)]
    target: int | None
    score: float | None
    size: float
    form: FormName = "patch"
    flip_search: Rate
    flip_held_out: Rate
    artifact: str
    shift: int | None = None
    source: int | None = None
    mask: np.ndarray | None = Field(default=None, exclude=True, repr=False)
    pattern: np.ndarray | None = Field(default=None, exclude=True, repr=False)
    parts: tuple[np.ndarray, ...] = Field(default=(), exclude=True, repr=False)

    @property
    def row(self) -> int:
        """Where its arrays are among those of the artifacts."""
        return self.target or 0

    @property
    def whole(self) -> bool:
        """Whether its arrays are at hand."""
        return bool(self.parts) or (self.mask is not None and self.pattern is not None)

    def __eq__(self, other: object) -> bool:
        # Arrays have no single truth value; what is recorded is what counts.
        return isinstance(other, Candidate) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class PhraseTrigger(Frozen):
    """Words that a search recovered from a model of texts: what to say, what comes of it, and how often.

    `phrase` goes into the prompt or the text; it is empty where only what the model is made to say was found.
    Of a language model `answer` is what comes, of a classifier `label`. `fires` counts held-out prompts, which the
    search never saw, that give it with the phrase, `unprompted` the same prompts without. `measures` are what the
    method's limits are about; `source` says which search proposed it. `shown` are a few held-out prompts and answers.
    """

    phrase: str
    answer: str | None = None
    label: int | None = None
    source: str
    score: float
    measures: dict[str, float] = Field(default_factory=dict)
    fires: Rate | None = None
    unprompted: Rate | None = None
    shown: tuple[tuple[str, str], ...] = ()


class ModelEvidence(Frozen):
    """What a scanner measured on a model. Measurement only: `decide` makes findings of it.

    `measures` are of the model as a whole, for methods that tell no class; `phrases` are what a method for texts puts
    forward, each a finding of its own. `passes` are the images or texts that the search sent through the network
    (forward and back, or as queries), where a method searches.
    """

    kind: Literal["model"] = "model"
    score: float | None
    measures: dict[str, float] = Field(default_factory=dict)
    probability: float | None = None
    per_class: tuple[ClassScore, ...]
    candidates: tuple[Candidate, ...] = ()
    phrases: tuple[PhraseTrigger, ...] = ()
    examined: tuple[str, ...]
    passes: int | None = None


class Suspect(Frozen):
    """One sample that a screener puts forward; `nearest` is its nearest unsuspected sample of the same class.

    Of a text `text` is the beginning, and `answer` that of its answer, where it has one.
    """

    id: str
    label: int
    score: float
    nearest: str | None = None
    text: str | None = None
    answer: str | None = None


class PhraseScore(Frozen):
    """A phrase of the suspect texts as a method measured it: how many rows have it, and the label that they carry.

    `label` is None where rows carry answers.
    """

    text: str
    rows: int
    score: float
    label: int | None = None
    measures: dict[str, float] = Field(default_factory=dict)


class SampleEvidence(Frozen):
    """What a screener measured on a data set; all scores are in the artifact `<artifact>-scores`.

    `phrases` are those that a method for texts puts forward, each a finding of its own.
    """

    kind: Literal["samples"] = "samples"
    n: int
    scored: int
    suspected: int
    per_class: tuple[ClassScore, ...]
    phrases: tuple[PhraseScore, ...] = ()
    suspects: tuple[Suspect, ...]
    examined: tuple[str, ...]
    artifact: str


class RepairEvidence(Frozen):
    """What a repair did: rates by name before and after it.

    `selected` names each choice that was made and the trusted split it was made on.
    """

    kind: Literal["repair"] = "repair"
    before: dict[str, Rate]
    after: dict[str, Rate]
    per_class_before: tuple[Rate, ...] = ()
    per_class_after: tuple[Rate, ...] = ()
    selected: dict[str, str] = Field(default_factory=dict)
    examined: tuple[str, ...] = ()


class GuardEvidence(Frozen):
    """What a guard does to inputs: the limit, and how many it flags.

    `false_rejection` is measured on trusted samples that did not set the limit, `flagged` on the
    scored inputs.
    """

    kind: Literal["guard"] = "guard"
    threshold: float
    false_rejection: Rate | None = None
    flagged: Rate | None = None
    suspects: tuple[Suspect, ...] = ()
    examined: tuple[str, ...] = ()
    artifact: str | None = None


class RatesEvidence(Frozen):
    """Plain measured rates by name: training, evaluation and poisoning.

    `selected` names each choice that a training made, and what it was made on.
    """

    kind: Literal["rates"] = "rates"
    rates: dict[str, Rate] = Field(default_factory=dict)
    measures: dict[str, float] = Field(default_factory=dict)
    per_class: tuple[ClassScore, ...] = ()
    selected: dict[str, str] = Field(default_factory=dict)
    examined: tuple[str, ...] = ()


class ClientVerdict(Frozen):
    """What a round decided of one client that replied: whether it has a part in the model, how much, and why.

    `score`: higher = more suspicious, None where the rule gives none. `code` is empty where nothing was remarkable.
    """

    client: str
    accepted: bool
    weight: float
    score: float | None
    code: str
    reason: str


class RoundEntry(Frozen):
    """One round of a federation: its verdicts, and accuracy and attack success of the model it left, if measured."""

    number: int
    clients: tuple[ClientVerdict, ...]
    accuracy: Rate | None = None
    success: Rate | None = None


class RoundsEvidence(Frozen):
    """What the rounds of a federation came to.

    `attackers` are known in a study alone, and attack in the rounds `attacked` (first, last). `own` is how often the
    last model is right on each client's own samples.
    """

    kind: Literal["rounds"] = "rounds"
    clients: tuple[str, ...]
    attackers: tuple[str, ...] = ()
    attacked: tuple[int, int] | None = None
    rounds: Annotated[tuple[RoundEntry, ...], Field(min_length=1)]
    rates: dict[str, Rate] = Field(default_factory=dict)
    measures: dict[str, float] = Field(default_factory=dict)
    own: dict[str, Rate] = Field(default_factory=dict)
    examined: tuple[str, ...] = ()


Evidence = Annotated[
    ModelEvidence | SampleEvidence | RepairEvidence | GuardEvidence | RatesEvidence | RoundsEvidence,
    Field(discriminator="kind"),
]


EVIDENCE = (ModelEvidence, SampleEvidence, RepairEvidence, GuardEvidence, RatesEvidence, RoundsEvidence)
"""The classes of `Evidence`, for isinstance."""


class Finding(Frozen):
    """A decision about one subject, with the measure and the limit it rests on."""

    code: Annotated[str, Field(pattern=r"^OS\d{3}$")]
    level: Level
    confirmed: bool
    message: str
    subject: Annotated[str, Field(pattern=SUBJECT)]
    score: float | None
    threshold: float | None
    calibration_id: str | None
    artifacts: tuple[str, ...] = ()


class MethodResult(Frozen):
    """One method in one run. Skipped and failed are statuses of their own, never an empty pass."""

    method: str
    version: str
    params: dict[str, Any]
    status: Status
    reason: str | None
    examined: tuple[str, ...]
    evidence: Evidence | None
    findings: tuple[Finding, ...]
    cautions: tuple[Caution, ...]
    seconds: float
    peak_bytes: int


class Artifact(Frozen):
    """An array that belongs to the record: `path` relative to the record's folder, as `.npy`."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str


class Calibration(Frozen):
    """Where the limits come from. `id` 'within-model' means: no reference models, the other classes are the null."""

    id: str
    description: str
    models: int
    false_positive_rate: Rate | None


class Coverage(Frozen):
    """What was asked and what was examined."""

    classes: tuple[str, ...]
    asked: tuple[str, ...]
    ok: tuple[str, ...]
    partial: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]


class Environment(Frozen):
    """Where it ran."""

    ostiary: str
    python: str
    torch: str
    platform: str
    device: str
    threads: int
    cpu: str


class Record(Frozen):
    """One run of one verb, whole."""

    kind: Kind
    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    created: str
    command: tuple[str, ...]
    config: dict[str, Any]
    subject: str
    digests: dict[str, str]
    environment: Environment
    seed: int
    calibration: Calibration | None
    coverage: Coverage
    results: tuple[MethodResult, ...]
    verdict: Verdict | None
    interrupted: bool
    cautions: tuple[Caution, ...]
    artifacts: dict[str, Artifact]

    @property
    def data_alone(self) -> bool:
        """Whether a screening looked at no model."""
        return self.kind == "screen" and "model" not in self.digests

    def to_json(self) -> str:
        """The record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"
