"""One tiny trained model for all contract tests, and the toy methods on the import path."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d

from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, digits, load_uint8, trusted_subset
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.training import Recipe, accuracy, train

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(scope="session")
def small_set() -> ImageSet:
    """All 1347 digits at 16x16."""
    data = digits("train")
    pixels = avg_pool2d(load_uint8(data).float(), 2).round().to(torch.uint8)
    return ArraySet(pixels, data.labels, data.classes, data.ids, name="digits16")


@pytest.fixture(scope="session")
def small_model(small_set: ImageSet) -> TorchClassifier:
    """A model of `small_set`, trained for a few seconds; tests must not change it."""
    module = build("small-cnn", 10, width=8)
    model = TorchClassifier(module, small_set.classes, small_set.shape, arch="small-cnn", name="small-digits")
    recipe = Recipe(epochs=4, batch=64, lr=0.1, padding=1, flip=False, precision="fp32")
    model = train(model, small_set, recipe, run=Run()).model
    assert accuracy(model, small_set).low > 0.9
    return model


@pytest.fixture(scope="session")
def trusted(small_set: ImageSet) -> ImageSet:
    """Twelve trusted samples per class or so."""
    return trusted_subset(small_set, 120, seed=1)


@pytest.fixture(scope="session")
def screened(small_set: ImageSet) -> ImageSet:
    """About 60 samples per class to screen."""
    return trusted_subset(small_set, 600, seed=2)
