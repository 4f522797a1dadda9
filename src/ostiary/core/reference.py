"""Reference models: how strange the strangest class of a model is that nobody is known to have attacked.

A method's limit compares the classes of one model. Natural classes differ too, so a reference tells how
far they do: each class is held against the same class of the reference models, and the strangest class
of a model against the strangest class of each of them. Where a method measures a trigger's size, the class must be
strange among the classes of its model, and its trigger small in itself: in a model all of whose triggers are large
one is the smallest, too.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from ostiary.core.card import Card, Limit
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.files import write_text
from ostiary.core.records import Calibration, ClassScore, Frozen, ModelEvidence, Rate

MEASURE = "p_reference"
"""The name under which p stands among a class's measures."""
DISTANCE = "z_reference"
"""The name of the distance from the reference models that p comes from: 1 is what one model in ten reaches."""
ALPHA = 0.05
"""A class is a finding when at most this share of reference models has one as strange."""
LEAST_DISTANCE = 2.6
"""And when its distance reaches this: the thirty models that people can train tell one in thirty, no rarer thing."""
LEAST_MODELS = 19
"""With fewer, no p-value can reach ALPHA: the smallest is 1 / (models + 1)."""
NAMED_MODELS = 5
"""From this many on a class is held against the same class of the references, not against all classes."""
TAIL = 0.9
"""The quantile of the reference models' largest distances that is a method's unit."""
MIN_SPREAD = 0.05
"""The least spread of strangeness (5 % of a size), so that equal references do not make all else infinite."""
TINY = 1e-300
DIGITS = 4
"""Decimals that are kept: a hundredth of a percent of a size."""
MAX_BYTES = 64 * 2**20


def strangeness(row: ClassScore, card: Card) -> float | None:
    """The measure of the card's first limit, turned so that more is stranger; None where unmeasured.

    Ratios and p-values count by their logarithm, as the limit says.
    """
    limit = card.limits[0]
    value = row.measures.get(limit.measure)
    if value is None:
        return None
    return (math.log(max(value, TINY)) if limit.log else value) * (1 if limit.high is None else -1)


def smallness(row: ClassScore, card: Card) -> float | None:
    """The logarithm of how small the class's trigger is; None where the card names no size, or it is unmeasured."""
    value = row.measures.get(card.size)
    return None if value is None else -math.log(max(value, TINY))


def compared(row: ClassScore, card: Card) -> tuple[float | None, ...]:
    """What of a class is held against reference models: its strangeness and, where the card names a size, smallness."""
    both = (strangeness(row, card), smallness(row, card)) if card.size else (strangeness(row, card),)
    return tuple(None if value is None else round(value, DIGITS) for value in both)


def subjects(evidence: ModelEvidence) -> tuple[ClassScore, ...]:
    """The rows that limits apply to: the classes, or the model as a whole in one row labelled 0."""
    return evidence.per_class or (ClassScore(label=0, score=evidence.score, measures=evidence.measures),)


def meets_others(row: ClassScore, card: Card) -> bool:
    """True when every limit of the card that holds beside p is met."""
    return all(limit.meets(row.measures.get(limit.measure)) for limit in card.others)


class Searched(Frozen):
    """A method as it was run on every reference model."""

    version: str
    params: dict[str, Any]


class ClassValues(Frozen):
    """What one method gave for one model: all that is `compared`, class by class, and whether all other limits are met.

    One class where the method measures the model as a whole.
    """

    compared: tuple[tuple[float | None, ...], ...]
    others_met: tuple[bool, ...]


class ReferenceModel(Frozen):
    """One reference model, by the name of its file and its digest."""

    name: str
    digest: str
    values: dict[str, ClassValues]


class Reference(Frozen):
    """The reference models of one architecture, number of classes and input shape; a JSON file."""

    kind: Literal["reference"] = "reference"
    schema_version: Literal[2] = 2
    created: str
    ostiary: str
    arch: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    trusted: str
    trusted_samples: int
    methods: dict[str, Searched]
    models: tuple[ReferenceModel, ...] = Field(default=())

    @cached_property
    def id(self) -> str:
        """Architecture, classes, day and the first digits of the content's digest."""
        digest = sha256(self.model_dump_json().encode()).hexdigest()
        return f"{self.arch}-{len(self.classes)}-{self.created[:10]}-{digest[:8]}"

    def with_model(self, model: ReferenceModel) -> "Reference":
        """The same with one more model."""
        return self.model_copy(update={"models": (*self.models, model)})

    def unfit(self, arch: str | None, classes: int, input_shape: Sequence[int]) -> str | None:
        """Why this reference cannot judge a model of that kind; None when it can."""
        ours = (self.arch, len(self.classes), tuple(self.input_shape))
        theirs = (arch, classes, tuple(input_shape))
        if ours == theirs:
            return None
        mine, yours = (f"{a} with {n} classes of {'x'.join(map(str, shape))}" for a, n, shape in (ours, theirs))
        return f"it was made from models of {mine}, this is {yours}"


def now() -> str:
    """The moment, for `created`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_reference(path: Path) -> Reference:
    """The reference in a file; raises FormatError when there is none."""
    hint = "make one with `ostiary calibrate`"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"'{path}' is larger than the limit of {MAX_BYTES} bytes", hint=hint)
        return Reference.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(f"cannot read the reference '{path}': {error.strerror}", hint=hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise FormatError(f"'{path}' is no reference: {where}: {first['msg']}", hint=hint) from error


def write_reference(reference: Reference, path: Path) -> None:
    """Write a reference, in place of an earlier one of that name; raises OutputError."""
    write_text(path, reference.model_dump_json() + "\n", replace=True)


def _rows(values: Sequence[Sequence[float | None]]) -> np.ndarray:
    """The classes' values as an array, NaN for None."""
    return np.array([[np.nan if one is None else one for one in row] for row in values], dtype=float)


def _unit(largest: np.ndarray) -> float:
    """What one model in ten reaches; at least 1, as where no class of any model meets the other limits."""
    finite = largest[np.isfinite(largest)]
    return max(1.0, float(np.quantile(finite, TAIL))) if len(finite) else 1.0


class Null:
    """What a reference says of the classes of a model, for the methods of one run.

    Classes that fail another limit of a method can be no finding and count nowhere. The strangeness z of a class is
    its distance from the median of the same class of the references (of all classes, where the names differ), in
    robust standard deviations over all of them, the least over what is `compared`, over the method's unit: the
    distance that the strangest class of one reference model in ten reaches. Methods differ in their tails, and
    without a unit the one with the longest would decide for all. A model's statistic is its largest z over all
    classes and methods of the run; p is the share of reference models, with the model itself, whose statistic reaches
    z. So p holds for the run as a whole, however many classes and methods there are.

    Raises ConfigError for fewer than `LEAST_MODELS` models.
    """

    def __init__(self, reference: Reference, methods: Sequence[str], classes: Sequence[str]) -> None:
        if len(reference.models) < LEAST_MODELS:
            raise ConfigError(
                f"the reference '{reference.id}' has {len(reference.models)} models; "
                f"at least {LEAST_MODELS} are needed for a p-value of {ALPHA}",
                hint="add models with `ostiary calibrate MODEL... -o` the same file",
            )
        self.reference = reference
        self.methods = tuple(method for method in methods if method in reference.methods)
        named = tuple(classes) == reference.classes and tuple(classes) != tuple(map(str, range(len(classes))))
        self._named = named and len(reference.models) >= NAMED_MODELS
        self._values = {
            method: np.array([_rows(model.values[method].compared) for model in reference.models])
            for method in self.methods
        }
        self._met = {
            method: np.array([model.values[method].others_met for model in reference.models]) for method in self.methods
        }
        largest = {method: self._largest(method) for method in self.methods}
        self._units = {method: _unit(values) for method, values in largest.items()}
        scaled = [values / self._units[method] for method, values in largest.items()]
        self.statistics = np.max([np.full(len(reference.models), -math.inf), *scaled], axis=0)

    def _standard(self, values: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """`values` [k, m] against the references `rest` [n, k, m]: the least over the m measures, [k]."""
        each = [self._distance(values[:, at], rest[:, :, at]) for at in range(values.shape[1])]
        return np.asarray(np.min(each, axis=0))

    def _distance(self, values: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """One measure of `values` [k] against the references `rest` [n, k]."""
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(rest)
            middle = np.nanmedian(rest) if known.any() else 0.0
            place = np.full(rest.shape[1], middle)
            if self._named:
                enough = known.sum(0) >= NAMED_MODELS
                place[enough] = np.nanmedian(rest[:, enough], axis=0)
            gaps = np.abs(rest - place)[known]
        spread = 1.4826 * float(np.median(gaps)) if len(gaps) else 0.0
        return np.asarray((values - place) / max(spread, MIN_SPREAD))

    def _largest(self, method: str) -> np.ndarray:
        """The largest distance of each reference model's classes from the other models; minus infinity for none."""
        values, met = self._values[method], self._met[method]
        found = np.full(len(values), -math.inf)
        for row in range(len(values)):
            distance = self._standard(values[row], np.delete(values, row, axis=0))[met[row]]
            if (~np.isnan(distance)).any():
                found[row] = np.nanmax(distance)
        return found

    @property
    def models(self) -> int:
        """How many reference models there are."""
        return len(self.statistics)

    def limits(self, card: Card) -> tuple[Limit, ...]:
        """The limits of `card` with p and the distance behind it in place of the first."""
        return (Limit(measure=MEASURE, high=ALPHA), Limit(measure=DISTANCE, low=LEAST_DISTANCE), *card.others)

    def judge(self, evidence: ModelEvidence, card: Card) -> ModelEvidence:
        """The evidence with p, and the distance z behind it, of each class that meets all limits of `card` but one."""
        rows = subjects(evidence)
        values = _rows([compared(row, card) for row in sorted(rows, key=lambda row: row.label)])
        values[[row.label for row in rows if not meets_others(row, card)]] = np.nan
        z = self._standard(values, self._values[card.id]) / self._units[card.id]
        p = (1 + (self.statistics[:, None] >= z).sum(0)) / (self.models + 1)
        judged = tuple(
            row
            if np.isnan(z[row.label])
            else row.model_copy(
                update={"measures": {**row.measures, MEASURE: float(p[row.label]), DISTANCE: float(z[row.label])}}
            )
            for row in rows
        )
        return evidence.model_copy(
            update={"per_class": judged} if evidence.per_class else {"measures": judged[0].measures}
        )

    def as_strange(self, p: float) -> int:
        """How many of the reference models have a class as strange as one of that p."""
        return round(p * (self.models + 1)) - 1

    @property
    def false_positives(self) -> Rate:
        """How many of the reference models would be findings, each judged by the others."""
        far = self.statistics[self.statistics >= LEAST_DISTANCE]
        p = [int((self.statistics >= own).sum()) / self.models for own in far]  # the model itself is the 1 of 1 + k
        return Rate(k=sum(one <= ALPHA for one in p), n=self.models)

    def calibration(self) -> Calibration:
        """What the record says about where its limits come from."""
        reference = self.reference
        return Calibration(
            id=reference.id,
            description=f"p at most {ALPHA} and z at least {LEAST_DISTANCE} against models of {reference.arch} with "
            f"{len(reference.classes)} classes, "
            f"scanned with {reference.trusted_samples} trusted samples of '{reference.trusted}'",
            models=self.models,
            false_positive_rate=self.false_positives,
        )
