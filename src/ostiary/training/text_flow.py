"""The train verb on texts with labels: a small classifier, written as a folder, with a record."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ostiary.core.card import Card, Have, Needs
from ostiary.core.errors import DataError
from ostiary.core.execute import params_of
from ostiary.core.files import refuse_existing
from ostiary.core.records import RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.text_folder import save_text_classifier
from ostiary.training.measure import accuracy
from ostiary.training.text_classifier import TextRecipe, small_text_classifier, train_text_classifier


@dataclass(frozen=True, slots=True)
class TextTraining:
    """Training with one recipe, as a method that `execute` can run."""

    card: ClassVar[Card] = Card(
        id="text.training.train",
        summary="AdamW under a OneCycle schedule",
        paper="Smith, Topin 2018, arXiv 1708.07120 (the schedule)",
        needs=Needs(modality="text", training_data=True),
        cost="steps x batch forward and backward passes",
    )

    recipe: TextRecipe

    def train(self, model: TextClassifier, data: TextSet, /, *, run: Run) -> tuple[float, ...]:
        """Train `model` in place; the mean loss of every tenth of the steps."""
        return train_text_classifier(model, data, self.recipe, run=run)


def train_text_model(
    data: TextSet,
    out: Path,
    *,
    recipe: TextRecipe | None = None,
    test: TextSet | None = None,
    options: Options | None = None,
) -> Record:
    """Train a small classifier on texts with labels and write its folder to `out`.

    Raises OstiaryError for unusable inputs.
    """
    options, recipe = options or Options(), recipe or TextRecipe()
    refuse_existing(out)
    for one in (data, test):
        if one is not None and one.answers is not None:
            raise DataError(f"'{one.name}' has answers, a classifier learns labels", hint="give a set with labels")
    if test is not None and test.classes != data.classes:
        raise DataError(f"'{test.name}' has classes {test.classes}, '{data.name}' {data.classes}")
    model = small_text_classifier(data, seed=options.seed).to(options.device)
    session = start("train", model, options, {"recipe": params_of(recipe)}, [TextTraining.card.id], data=data)

    def summarise(losses: tuple[float, ...], run: Run) -> RatesEvidence:
        rates = {} if test is None else {"accuracy": accuracy(model, test, run=run)}
        return RatesEvidence(rates=rates, measures={"final loss": losses[-1]})

    have = Have(modality="text", training_data=True)
    outcome = session.execute(TextTraining(recipe), model, data, have=have, summarise=summarise, call="train")
    if outcome.value is not None:
        save_text_classifier(model, out, notes={"trained_on": data.digest})
        session.config["out"] = str(out)
        session.digests["model"] = model.digest
    return session.finish()
