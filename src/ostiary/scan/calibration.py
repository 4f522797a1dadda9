"""Reference models for a scan: making a reference, and finding the one that fits a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import ostiary
from ostiary.core.errors import ConfigError, FormatError, ModelError
from ostiary.core.execute import Outcome, execute, params_of
from ostiary.core.files import refuse_existing
from ostiary.core.records import ModelEvidence
from ostiary.core.reference import (
    ClassValues,
    Null,
    Reference,
    ReferenceModel,
    Searched,
    compared,
    meets_others,
    now,
    read_reference,
    subjects,
    write_reference,
)
from ostiary.core.session import Options
from ostiary.data import ImageSet
from ostiary.inputs import class_names, have_of
from ostiary.models.classifier import TorchClassifier

NONE = "none"
"""Asks for limits within the model where a reference would be found."""


@dataclass(frozen=True, slots=True)
class Left:
    """A model that could not become a reference, and why."""

    name: str
    reason: str


def shipped() -> tuple[Reference, ...]:
    """The references that come with the package."""
    folder = files("ostiary.scan") / "references"
    if not folder.is_dir():
        return ()
    found = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".json"):
            with as_file(entry) as path:
                found.append(read_reference(path))
    return tuple(found)


def null_for(
    model: Any, planned: Sequence[Any], classes: Sequence[str], given: Reference | Path | str | None
) -> Null | None:
    """What the given reference, else a shipped one that fits, says of `model`; None where there is none.

    One that was not asked for must also be of the same task, by the names of its classes: models of the same kind that
    learned something else differ from it for that reason alone; and it must know all methods that have limits. A given
    one speaks for those of the `planned` methods that were run on the reference models with equal parameters. A
    reference model never judges itself.

    Raises FormatError for a file that is no reference, ConfigError for one that was made from other models, with
    none of the methods, or from too few models.
    """
    if given == NONE or not isinstance(model, TorchClassifier):
        return None
    kind = (model.arch, len(model.classes), model.input_shape)
    if given is None:
        same = [one for one in shipped() if one.unfit(*kind) is None and one.classes == tuple(classes)]
        judged = [method for method in planned if method.card.limits]
        fitting = [one for one in same if len(_known(one, judged)) == len(judged)]
        return Null(_without(fitting[-1], model), _known(fitting[-1], planned), classes) if fitting else None
    reference = given if isinstance(given, Reference) else read_reference(Path(given))
    reason = reference.unfit(*kind)
    if reason is not None:
        raise ConfigError(
            f"the reference '{reference.id}' does not fit: {reason}", hint="make one with `ostiary calibrate`"
        )
    known = _known(reference, planned)
    if not known:
        asked = ", ".join(method.card.id for method in planned)
        raise ConfigError(
            f"the reference '{reference.id}' was made without {asked} as set here",
            hint=f"it knows {', '.join(reference.methods)}; use the preset and parameters that it was made with",
        )
    return Null(_without(reference, model), known, classes)


def _known(reference: Reference, planned: Sequence[Any]) -> tuple[str, ...]:
    return tuple(method.card.id for method in planned if reference.methods.get(method.card.id) == _searched(method))


def _without(reference: Reference, model: TorchClassifier) -> Reference:
    others = tuple(one for one in reference.models if one.digest != model.digest)
    return reference if len(others) == len(reference.models) else reference.model_copy(update={"models": others})


def _searched(method: Any) -> Searched:
    plain = Searched(version=method.card.version, params=params_of(method))
    return Searched.model_validate_json(plain.model_dump_json())  # tuples become lists, as in a file


def calibrate(
    models: Sequence[TorchClassifier | Path],
    load: Callable[[Path], TorchClassifier],
    trusted: ImageSet,
    out: Path,
    planned: Sequence[Any],
    options: Options,
) -> tuple[Reference, list[Left]]:
    """Scan models that nobody is known to have attacked and keep their measures in `out`.

    The file is written after every model, and models that it holds already are not scanned again: a call that was
    stopped goes on where it was. Models that cannot be read, are of another kind or fail a method are left out and
    told.

    Raises ConfigError for methods without limits, and when `out` was made with other methods or from other
    models; FormatError when it is no reference.
    """
    for method in planned:
        if not method.card.limits:
            raise ConfigError(f"'{method.card.id}' has no limits, so there is nothing to calibrate")
    methods = {method.card.id: _searched(method) for method in planned}
    reference = read_reference(out) if out.exists() else None
    if reference is not None and reference.methods != methods:
        raise ConfigError(
            f"'{out}' was made with other methods or parameters: {', '.join(reference.methods)}",
            hint="use the same, or another -o",
        )
    left: list[Left] = []
    for number, given in enumerate(models):
        try:
            model = given if isinstance(given, TorchClassifier) else load(given)
        except (FormatError, ModelError) as error:
            left.append(Left(str(given), str(error)))
            continue
        reference = reference or _empty(model, trusted, methods)
        options.run().progress(number, len(models), model.name or "model")
        if any(one.digest == model.digest for one in reference.models):
            continue
        found = _scanned(model, reference, trusted, planned, options)
        if isinstance(found, Left):
            left.append(found)
            continue
        reference = reference.with_model(found)
        write_reference(reference, out)
    if reference is None or not reference.models:
        refuse_existing(out)
        raise ConfigError("none of the models became a reference", hint="; ".join(one.reason for one in left) or None)
    return reference, left


def _empty(model: TorchClassifier, trusted: ImageSet, methods: dict[str, Searched]) -> Reference:
    return Reference(
        created=now(),
        ostiary=ostiary.__version__,
        arch=model.arch or "",
        classes=class_names(model, trusted),
        input_shape=tuple(model.input_shape),
        trusted=trusted.name,
        trusted_samples=len(trusted),
        methods=methods,
    )


def _scanned(
    model: TorchClassifier, reference: Reference, trusted: ImageSet, planned: Sequence[Any], options: Options
) -> ReferenceModel | Left:
    name = model.name or "model"
    reason = reference.unfit(model.arch, len(model.classes), model.input_shape)
    if reason is not None:
        return Left(name, reason)
    have, values = have_of(model, trusted), {}
    for method in planned:
        outcome = execute(method, model, trusted, run=options.run(), have=have, classes=reference.classes)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.result.status != "ok":
            return Left(name, f"{method.card.id} {outcome.result.status}: {outcome.result.reason}")
        values[method.card.id] = _values(outcome, method)
    return ReferenceModel(name=name, digest=model.digest, values=values)


def _values(outcome: Outcome, method: Any) -> ClassValues:
    evidence = outcome.result.evidence
    rows = subjects(evidence) if isinstance(evidence, ModelEvidence) else ()
    return ClassValues(
        compared=tuple(compared(row, method.card) for row in rows),
        others_met=tuple(meets_others(row, method.card) for row in rows),
    )
