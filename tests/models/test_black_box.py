"""A black box around a function: what it may answer, and what is told of what it may not."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ostiary.core.errors import EndpointError
from ostiary.core.protocols import Classifier, Predictor
from ostiary.inputs import have_of
from ostiary.models.black_box import BlackBox

SHAPE = (1, 4, 4)


def two(x: Tensor) -> Tensor:
    bright = x.mean((1, 2, 3))
    return torch.stack([1 - bright, bright], 1)


def images(n: int = 5) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_probabilities_are_passed_on_in_batches_and_counted() -> None:
    sizes = []

    def answer(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return two(x)

    box = BlackBox(answer, ("dark", "bright"), SHAPE, batch=2)
    assert isinstance(box, Predictor) and not isinstance(box, Classifier)
    torch.testing.assert_close(box.predict(images()), two(images()))
    assert sizes == [4, 2, 2, 1] and box.queries == 9
    assert box.predict(images(0)).shape == (0, 2)
    assert have_of(box, None).access == "probabilities" and box.classes == ("dark", "bright")


@pytest.mark.parametrize("form", [np.asarray, lambda x: x.tolist(), lambda x: x.double() * 1.02])
def test_forms_and_roundings_are_taken(form: Any) -> None:
    box = BlackBox(lambda x: form(two(x)), None, SHAPE)
    found = box.predict(images())
    assert found.dtype == torch.float32 and box.classes == ("0", "1")
    torch.testing.assert_close(found, two(images()))


def test_labels_are_told_from_probabilities() -> None:
    box = BlackBox(lambda x: two(x).argmax(1), 3, SHAPE)
    assert box.access == "labels" and have_of(box, None).access == "labels"
    assert box.predict(images()).shape == (5, 3)
    assert torch.equal(box.predict(images()).argmax(1), two(images()).argmax(1))
    with pytest.raises(EndpointError, match="do not tell how many classes"):
        BlackBox(lambda x: two(x).argmax(1), None, SHAPE)


def test_the_digest_follows_what_it_answers() -> None:
    one, same = BlackBox(two, None, SHAPE), BlackBox(lambda x: two(x) + 1e-6, None, SHAPE)
    other = BlackBox(lambda x: two(x).flip(1), None, SHAPE)
    assert one.digest == same.digest != other.digest and len(one.digest) == 64
    assert BlackBox(two, ("a", "b"), SHAPE).digest != one.digest


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x: two(x)[:-1], "the shape"),
        (lambda x: two(x)[None], "the shape"),
        (lambda x: two(x) * float("nan"), "NaN"),
        (lambda x: two(x) + torch.tensor([float("inf"), 0]), "infinity"),
        (lambda x: two(x) * 51 - 25, "no probabilities"),
        (lambda x: two(x) + 1, "no probabilities"),
        (lambda x: two(x) * 0, "no probabilities"),
        (lambda x: "sunny", "no array of numbers"),
        (lambda x: [[1, 2], [3]], "no array of numbers"),
        (lambda x: two(x).argmax(1) + 2, "whole numbers from 0 to 1"),
        (lambda x: two(x)[:, 0], "whole numbers from 0 to 1"),
        (lambda x: two(x).bool(), "no numbers"),
        (lambda x: two(x)[:, :1] * 0 + 1, "for 2 classes"),
    ],
)
def test_what_cannot_be_used_is_told(answer: Any, told: str) -> None:
    with pytest.raises(EndpointError, match=told) as caught:
        BlackBox(answer, 2, SHAPE)
    assert caught.value.hint


def test_a_form_that_changes_is_told() -> None:
    box = BlackBox(lambda x: two(x) if len(x) == 4 else two(x).argmax(1), None, SHAPE)
    with pytest.raises(EndpointError, match="in turn"):
        box.predict(images())
    wide = BlackBox(lambda x: two(x) if len(x) == 4 else torch.full((len(x), 3), 1 / 3), None, SHAPE)
    with pytest.raises(EndpointError, match="the shape"):
        wide.predict(images())
