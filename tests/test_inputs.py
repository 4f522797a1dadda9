"""What does not fit together is refused before any work starts."""

import pytest
import torch

from ostiary.core.errors import DataError
from ostiary.data import ArraySet
from ostiary.inputs import check_fit, check_shape
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build

NAMES = ("cat", "dog", "owl")


def images(classes: tuple[str, ...], side: int = 8) -> ArraySet:
    return ArraySet(torch.zeros(6, 3, side, side, dtype=torch.uint8), torch.arange(6) % 3, classes)


@pytest.fixture
def model() -> TorchClassifier:
    return TorchClassifier(build("small-cnn", 3, width=2), NAMES, (3, 8, 8))


def test_the_same_classes_in_another_order_are_refused(model: TorchClassifier) -> None:
    check_fit(model, images(NAMES))
    check_fit(model, images(("Katze", "Hund", "Eule")))
    with pytest.raises(DataError, match="names class 0 'dog', the model 'cat'"):
        check_fit(model, images(("dog", "cat", "owl")))


def test_a_model_that_only_numbers_its_classes_says_nothing_about_their_order() -> None:
    numbers = TorchClassifier(build("small-cnn", 11, width=2), 11, (3, 8, 8))
    folders = tuple(sorted(map(str, range(11))))
    check_fit(numbers, ArraySet(torch.zeros(22, 3, 8, 8, dtype=torch.uint8), torch.arange(22) % 11, folders))


def test_inputs_to_score_need_the_shape_alone(model: TorchClassifier) -> None:
    one_class = ArraySet(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.zeros(6, dtype=torch.long))
    check_shape(model, one_class)
    with pytest.raises(DataError, match="takes 3x8x8"):
        check_shape(model, images(NAMES, side=9))
