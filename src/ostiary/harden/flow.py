"""The harden verb: train on suspect data so that poison does not take, and say what the result does with that data."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ostiary.core.catalog import make, resolve
from ostiary.core.errors import ConfigError
from ostiary.core.execute import params_of
from ostiary.core.files import refuse_existing
from ostiary.core.protocols import Hardened
from ostiary.core.records import RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data import ImageSet, require_classes
from ostiary.inputs import check_alike, check_fit, have_of, start
from ostiary.models.load import save_model
from ostiary.training import Recipe, accuracy, predictions, rate
from ostiary.training.flow import new_model

KEEPS_LABEL = "samples that get the label they carry"
SUSPECTED_KEEPS_LABEL = "suspected samples that get the label they carry"
ON_TRUSTED = "accuracy on the trusted samples, which the training was given"


def harden(
    data: ImageSet,
    out: Path,
    *,
    method: str,
    params: Mapping[str, Mapping[str, Any]] | None,
    arch: str,
    width: int | None,
    recipe: Recipe,
    trusted: ImageSet | None,
    test: ImageSet | None,
    options: Options,
) -> Record:
    """Train a zoo model on the suspect `data` with one method and write it to `out`.

    The record tells how many samples of the suspect set, and of those that the method set apart, get the label they
    carry: planted ones should lose it. It carries no verdict: nobody looked for a backdoor in the result. `test`
    measures accuracy and is shown to no method. Which samples were set apart is the artifact `<method>-suspected`.
    Raises OstiaryError for unusable inputs.
    """
    refuse_existing(out)
    require_classes(data)
    name = resolve("harden", method)
    extra = {resolve("harden", key): dict(values) for key, values in (params or {}).items()}
    built = make("harden", name, extra.pop(name, {}))
    if extra:
        raise ConfigError(
            f"'{next(iter(extra))}' has parameters but '{name}' runs", hint="set the parameters of the method that runs"
        )
    fresh = new_model(arch, data, width=width, seed=options.seed)
    if trusted is not None:
        check_alike(trusted, data)
    if test is not None:
        check_fit(fresh, test)
    have = dataclasses.replace(have_of(fresh, trusted), training_data=True)
    config = {"model": fresh.name, "arch": arch, "width": width, "recipe": params_of(recipe), "method": name}
    # Without the model: it is untrained, and its answers on the trusted samples say nothing.
    session = start("harden", None, options, config, [name], trusted=trusted, data=data, subject=fresh.name)

    def summarise(value: Hardened, run: Run) -> RatesEvidence:
        if value.suspected is not None:
            run.artifact(f"{built.card.name}-suspected", value.suspected.astype(np.uint8))
        return measure(value, data, trusted, test, run)

    outcome = session.execute(built, data, fresh, trusted, recipe, have=have, summarise=summarise)
    if outcome.value is not None:
        save_model(outcome.value.model, out, extra={"trained_on": data.digest, "harden": name})
        session.config["out"] = str(out)
        session.digests["model"] = outcome.value.model.digest
    return session.finish()


def measure(
    value: Hardened, data: ImageSet, trusted: ImageSet | None, test: ImageSet | None, run: Run
) -> RatesEvidence:
    """What the hardened model does with the suspect samples, and its accuracy where there is something to tell it."""
    kept = predictions(value.model, data, run=run) == data.labels
    rates = {KEEPS_LABEL: rate(kept)}
    if value.suspected is not None:
        rates[SUSPECTED_KEEPS_LABEL] = rate(kept[value.suspected])
    for name, part in ((ON_TRUSTED, trusted), ("accuracy", test)):
        if part is not None:
            rates[name] = accuracy(value.model, part, run=run)
    return RatesEvidence(rates=rates, selected=value.selected)
