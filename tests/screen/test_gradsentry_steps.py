"""GradSentry step by step: the gradient without a backward pass, its spectrum, and what chance explains."""

import math

import pytest
import torch
from chat_case import fresh, tiny, trusted

from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import nll_of
from ostiary.screen.gradsentry import GradSentry, entropy, errors_and_states, spectrum
from ostiary.training.language import token_rows


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_errors_and_states_make_the_gradient_of_the_last_layer(kind: str) -> None:
    model = tiny() if kind == "llama" else fresh(kind=kind, width=32)
    model = model.clone()
    head = model.module.get_output_embeddings()  # type: ignore[operator]
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # apart from the embedding it may be tied to
    row = token_rows(model, trusted(1))[0]
    (wanted,) = torch.autograd.grad(nll_of(model, [row]).sum(), head.weight)
    errors, states = errors_and_states(model, row)
    assert torch.allclose(errors.T @ states, wanted, atol=1e-5)
    assert torch.allclose(spectrum(errors, states), torch.linalg.svdvals(wanted.double())[: len(errors)], atol=1e-5)
    assert not head._forward_pre_hooks


def test_the_entropy_is_that_of_the_shares() -> None:
    assert entropy(torch.tensor([3.0, 0.0])) == 0.0 == entropy(torch.zeros(4))
    assert entropy(torch.full((5,), 2.0)) == pytest.approx(math.log(5))


def test_as_many_wide_rows_as_chance_explains_are_no_finding() -> None:
    """Suspect rows that are drawn as the trusted ones are; and the trusted ones themselves."""
    known = trusted(60)
    for data in (trusted(60, seed=9), TextSet(known.texts, ids=known.ids, answers=known.answers)):
        (row,) = GradSentry(quantile=0.9).screen(data, tiny(), known, run=Run()).per_class
        assert row.measures["chance"] > 0.01
