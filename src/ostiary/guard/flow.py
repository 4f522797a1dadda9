"""The guard verbs: fit a filter and save it, score inputs with a saved one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostiary.core.card import Have
from ostiary.core.catalog import make, method_class, methods, resolve
from ostiary.core.errors import ConfigError, DataError
from ostiary.core.files import refuse_existing
from ostiary.core.protocols import FittedGuard
from ostiary.core.records import GuardEvidence, Rate, Record, Suspect
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.core.types import Scores
from ostiary.data import Data, TextSet
from ostiary.guard.fitted import Takes
from ostiary.inputs import check_shape, have_of, start
from ostiary.models.classifier import TorchClassifier
from ostiary.models.language import LanguageModel
from ostiary.models.text_classifier import TextClassifier
from ostiary.scan.text_models import have_of_texts
from ostiary.screen.summary import excerpt

LISTED = 1000
PREFERRED: Mapping[Takes, tuple[str, ...]] = {
    "images": ("guard.mahalanobis", "guard.strip"),
    "prompts": ("text.guard.mahalanobis",),
    "texts with labels": ("text.guard.onion",),
}
"""What is fitted where no method is named: the first that can be, by how well they do on the bench."""


def fit(
    model: TorchClassifier | LanguageModel | TextClassifier,
    trusted: Data,
    out: Path,
    *,
    method: str | None,
    params: Mapping[str, Mapping[str, Any]] | None,
    options: Options,
) -> Record:
    """Fit a guard on trusted samples and write it to `out`; raises OstiaryError for unusable inputs.

    Without a `method` it is the first of `PREFERRED` whose needs are met.
    """
    refuse_existing(out)
    takes = _takes(model)
    text = takes != "images"
    have = _have(model, trusted)
    if method is None:
        preferred = PREFERRED[takes]
        fitting = (name for name in preferred if method_class("guard", name).card.needs.unmet(have) is None)
        method = next(fitting, preferred[0])
    chosen = resolve("guard", method, text=text)
    _check_method(chosen, takes)
    extra = {resolve("guard", name, text=text): dict(values) for name, values in (params or {}).items()}
    built = make("guard", chosen, extra.get(chosen, {}))
    session = start("guard", model, options, {"method": chosen}, [chosen], trusted=trusted)

    def summarise(value: FittedGuard[Any], run: Run) -> GuardEvidence:
        return GuardEvidence(threshold=value.threshold, false_rejection=value.false_rejection, artifact=value.card.name)

    outcome = session.execute(built, model, trusted, have=have, summarise=summarise, call="fit")
    if outcome.value is not None:
        outcome.value.save(out)
        session.config["out"] = str(out)
    return session.finish()


def _takes(model: object) -> Takes:
    if isinstance(model, LanguageModel):
        return "prompts"
    return "texts with labels" if isinstance(model, TextClassifier) else "images"


def _check_method(chosen: str, takes: Takes) -> None:
    """Raise ConfigError for a guard of language models on a classifier of texts, or the reverse."""
    own = method_class("guard", chosen).fitted.takes
    if own != takes and "images" not in (own, takes):
        fine = (key for key in methods("guard") if method_class("guard", key).fitted.takes == takes)
        raise ConfigError(
            f"'{chosen}' is for models that take {own}, this one takes {takes}",
            hint=f"for this model: {', '.join(sorted(fine))}",
        )


def _have(model: TorchClassifier | LanguageModel | TextClassifier, data: Data) -> Have:
    """What the planner may count on. Raises DataError where model and samples do not fit together."""
    if isinstance(model, TextClassifier):
        return have_of_texts(model, data)
    if isinstance(model, LanguageModel) and isinstance(data, TextSet):
        return Have(access="gradients", modality="text", trusted_per_class=len(data))
    if isinstance(model, LanguageModel) or isinstance(data, TextSet):
        takes, given = ("prompts", "images") if isinstance(model, LanguageModel) else ("images", "texts")
        raise DataError(f"the model takes {takes}, '{data.name}' holds {given}", hint=f"give a set of {takes}")
    return have_of(model, data)


def score(
    model: TorchClassifier | LanguageModel | TextClassifier, guard: FittedGuard[Any], data: Data, *, options: Options
) -> Record:
    """Score every sample of `data`; those above the guard's limit are findings; labels and answers are not used.

    Raises as `check_model`, and DataError for images of another shape than the model's.
    """
    guard.check_model(model)
    modality = guard.card.needs.modality
    if (modality == "text") != isinstance(data, TextSet):
        raise DataError(f"the guard looks at {modality}, '{data.name}' holds none", hint="give inputs of the model")
    if isinstance(model, TorchClassifier) and not isinstance(data, TextSet):
        check_shape(model, data)
    have = Have(access="gradients", modality=modality, trusted_per_class=guard.card.needs.trusted_per_class)
    session = start("guard", model, options, {"method": guard.card.id}, [guard.card.id], data=data)

    def summarise(scores: Scores, run: Run) -> GuardEvidence:
        run.artifact(f"{guard.card.name}-scores", scores)
        rows = guard.flagged(scores).nonzero().squeeze(1)
        rows = rows[scores[rows].argsort(descending=True)]
        return GuardEvidence(
            threshold=guard.threshold,
            false_rejection=guard.false_rejection,
            flagged=Rate(k=len(rows), n=len(scores)),
            suspects=tuple(
                Suspect(id=data.ids[row], label=int(data.labels[row]), score=float(scores[row]), **excerpt(data, row))
                for row in rows[:LISTED].tolist()
            ),
            artifact=guard.card.name,
        )

    session.execute(guard, model, data, have=have, summarise=summarise, call="score_all")
    return session.finish()
