"""One poisoned digits model and its unpoisoned twin, trained with the demo's recipe, for all mechanism checks."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from kept import all_kept, kept
from torch import Tensor

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.truth import Poisoned, Truth
from ostiary.bench.demo import RATE, RECIPE, TRUSTED
from ostiary.bench.metrics import attack_rates, quantised
from ostiary.core.records import ModelEvidence, Rate
from ostiary.core.run import Run
from ostiary.data import ImageSet, digits, split
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.neural_cleanse import NeuralCleanse
from ostiary.training import accuracy, train
from ostiary.training.flow import new_model
from ostiary.training.loop import Recipe

SEED, TARGET = 0, 0


def trained(data: ImageSet, recipe: Recipe = RECIPE) -> TorchClassifier:
    """A small CNN trained on `data`; in fp32 on every machine, so that all check much the same model."""
    recipe = dataclasses.replace(recipe, precision="fp32")
    model = new_model("small-cnn", data, width=None, seed=SEED)
    return train(model, data, recipe, run=Run(seed=SEED)).model


@dataclass(frozen=True)
class Lab:
    """Sets and models of the checks; tests must change neither."""

    part: ImageSet
    trusted: ImageSet
    test: ImageSet
    poisoned: Poisoned
    model: TorchClassifier
    twin: TorchClassifier

    def asr(self, model: TorchClassifier, truth: Truth | None = None) -> float:
        """Attack success rate of `model` on the test part."""
        return value(attack_rates(model, self.test, truth or self.poisoned.truth, run=Run()).success)

    def accuracy(self, model: TorchClassifier) -> float:
        """Accuracy of `model` on the test part."""
        return value(accuracy(model, self.test))

    def implants(self, model: TorchClassifier, truth: Truth, *, success: float = 0.95, loss: float = 0.02) -> bool:
        """The bar of docs/conformance.md: accuracy kept, the trigger works, and does nothing to the twin."""
        keeps = self.accuracy(model) >= self.accuracy(self.twin) - loss
        return keeps and self.asr(model, truth) >= success and self.asr(self.twin, truth) <= 0.2

    def triggered(self) -> Tensor:
        """Test images of the other classes with the trigger."""
        rows = (self.test.labels != TARGET).nonzero().squeeze(1)
        return quantised(self.poisoned.truth.trigger(self.test.take(rows), rng=torch.Generator()))

    @cached_property
    def is_poisoned(self) -> np.ndarray:
        """[n] bool over the poisoned set."""
        return np.isin(self.poisoned.data.ids, list(self.poisoned.truth.poisoned))

    @property
    def in_target(self) -> np.ndarray:
        """[n] bool: labelled as the target in the poisoned set."""
        return (self.poisoned.data.labels == TARGET).numpy()


def value(rate: Rate) -> float:
    """A rate that has a value, as a float."""
    assert rate.value is not None
    return rate.value


def trained_once(data: ImageSet, recipe: Recipe = RECIPE) -> TorchClassifier:
    """A model as `trained` gives it; tests that ask for the same one share its training."""
    whole = hashlib.sha256(f"{data.digest}:{recipe}".encode()).hexdigest()
    model: TorchClassifier = kept(f"trained-{whole}", lambda: trained(data, recipe))
    return model


@pytest.fixture(scope="session")
def train_on() -> object:
    """The function that trains a model as those of the lab."""
    return trained_once


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """5 % of the training digits with a yellow square and label 0: a third of that class."""
    part, trusted = split(digits("train"), (1 - TRUSTED, TRUSTED), seed=SEED)
    poisoned = BadNets(patch="yellow-square", target=TARGET, rate=RATE).poison(part, run=Run(seed=SEED))
    models = all_kept({"lab-model": lambda: trained(poisoned.data), "lab-twin": lambda: trained(part)})
    made = Lab(part, trusted, digits("test"), poisoned, models["lab-model"], models["lab-twin"])
    before = made.model.digest, made.twin.digest
    yield made
    assert (made.model.digest, made.twin.digest) == before, "a test changed a shared model"


def short_scan() -> NeuralCleanse:
    """Neural Cleanse as published but for shorter rounds and smaller batches: quick, and enough for small images."""
    return NeuralCleanse(steps=160, batch=16, batches_per_round=2)


@pytest.fixture(scope="session")
def scanned(lab: Lab) -> ModelEvidence:
    """Neural Cleanse on the poisoned model."""
    found: ModelEvidence = kept("lab-scan", lambda: short_scan().scan(lab.model, lab.trusted, run=Run(seed=SEED)))
    return found


@pytest.fixture(scope="session")
def twin_scanned(lab: Lab) -> ModelEvidence:
    """Neural Cleanse on the twin."""
    return short_scan().scan(lab.twin, lab.trusted, run=Run(seed=SEED))


@pytest.fixture(scope="session")
def recovered(scanned: ModelEvidence) -> ModelEvidence:
    """The evidence of the scan, cut down to the target class, as the repair verb passes it on."""
    kept = tuple(candidate for candidate in scanned.candidates if candidate.target == TARGET)
    return scanned.model_copy(update={"candidates": kept})
