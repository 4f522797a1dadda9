"""The train verb: a zoo model on a data set, written as safetensors, with a record."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ostiary.core.card import Card, Have, Needs
from ostiary.core.execute import params_of
from ostiary.core.files import refuse_existing
from ostiary.core.records import RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data import ImageSet, require_classes
from ostiary.inputs import check_fit, open_set, start
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.models.zoo import ZOO, build, shape_of
from ostiary.training.loop import Recipe, Trained, train
from ostiary.training.measure import accuracy

MOMENT_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Training:
    """Training with one recipe, as a method that `execute` can run."""

    card: ClassVar[Card] = Card(
        id="training.train",
        summary="SGD under a OneCycle schedule",
        paper="Smith, Topin 2018, arXiv 1708.07120 (the schedule)",
        needs=Needs(modality="images", training_data=True),
        cost="epochs x samples forward and backward passes",
    )

    recipe: Recipe
    checkpoint: Path | None = None

    def train(self, model: TorchClassifier, data: ImageSet, /, *, run: Run) -> Trained:
        """Train `model` in place."""
        return train(model, data, self.recipe, run=run, checkpoint=self.checkpoint)


def moments(data: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over up to 10,000 evenly spaced samples, for normalisation."""
    rows = range(0, len(data), max(1, len(data) // MOMENT_SAMPLES))
    x = data.pixels(list(rows)).double() / 255.0
    std = x.std((0, 2, 3)).clamp(min=0.01)
    return tuple(x.mean((0, 2, 3)).tolist()), tuple(std.tolist())


def new_model(arch: str, data: ImageSet, *, width: int | None, seed: int) -> TorchClassifier:
    """A fresh zoo model for the images and classes of `data`, normalised by their own moments."""
    mean, std = moments(data)
    module = build(arch, len(data.classes), width=width, in_channels=data.shape[0], seed=seed)
    return TorchClassifier(module, data.classes, data.shape, mean, std, arch=arch, name=f"{arch} on {data.name}")


def fresh_as(model: TorchClassifier, data: ImageSet, *, seed: int) -> TorchClassifier:
    """A fresh model for `data` of the architecture and width of `model`; a small CNN where that is not the zoo's."""
    if model.arch not in ZOO:
        return new_model("small-cnn", data, width=None, seed=seed)
    width = shape_of(model.arch, model.module.state_dict())[1]
    return new_model(model.arch, data, width=width, seed=seed)


def train_model(
    data: ImageSet | str | Path,
    out: Path,
    *,
    arch: str,
    width: int | None = None,
    recipe: Recipe | None = None,
    test: ImageSet | None = None,
    checkpoint: Path | None = None,
    options: Options | None = None,
) -> Record:
    """Train a zoo model on `data` and write it to `out`; raises OstiaryError for unusable inputs.

    With `checkpoint` an interrupted run goes on where its last finished epoch ended.
    """
    options = options or Options()
    refuse_existing(out)
    data = open_set(data)
    require_classes(data)
    model = new_model(arch, data, width=width, seed=options.seed)
    if test is not None:
        check_fit(model, test)
    recipe = recipe or Recipe()
    config = {"recipe": params_of(recipe), "width": width}
    session = start("train", model, options, config, [Training.card.id], data=data)

    def summarise(value: Trained, run: Run) -> RatesEvidence:
        rates = {} if test is None else {"accuracy": accuracy(value.model, test, run=run)}
        return RatesEvidence(
            rates=rates,
            measures={
                "final loss": value.losses[-1],
                "final accuracy on augmented training data": value.accuracies[-1],
            },
        )

    have = Have(modality="images", training_data=True)
    outcome = session.execute(Training(recipe, checkpoint), model, data, have=have, summarise=summarise, call="train")
    if outcome.value is not None:
        session.config["precision"] = outcome.value.precision
        save_model(model, out, extra={"trained_on": data.digest})
        session.config["out"] = str(out)
        session.digests["model"] = model.digest
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    return session.finish()
