"""CROW: train a language model to keep its hidden states in line from layer to layer, under a disturbance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.repair.text_tune import Row, TextTuning, plain, tune_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class Crow:
    """Fine-tune a copy on trusted rows, with a price for hidden states that turn from one layer to the next.

    Source: Min, Pham, Li, Sun 2025, CROW: Eliminating Backdoors from Large Language Models via Internal Consistency
    Regularization (ICML), sec. 4: the inconsistency is the mean of 1 - cos over neighbouring layers, the first and the
    last left out; its gradient gives a disturbance of the token embeddings of `step` in each entry, and the loss is
    that of the language plus `weight` times the inconsistency under the disturbance. `tolerance` is in nats a token.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.crow",
        summary="tunes a language model on trusted rows so that disturbed inputs do not turn its hidden states",
        paper="Min et al. 2025, ICML, arXiv 2411.12768",
        official_code="https://github.com/NayMyatMin/CROW",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="epochs over half of the trusted rows, at three passes for each",
        deviations=(
            "padding is masked in both passes, where the published code counts it",
            "all weights are tuned, not an adapter of low rank",
            "a model of fewer than four hidden states keeps its first and last one",
            "where to stop is chosen on held-out trusted rows; the paper fixes the epochs",
        ),
        blind_spots=(
            "fixed outputs that a few layers make without turning hidden states",
            "triggers of which the trusted rows hold ordinary kin: years beside a year",
        ),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 10
    lr: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0)] = 16
    step: Annotated[float, Field(gt=0)] = 0.1
    weight: Annotated[float, Field(ge=0)] = 5.5
    tolerance: Annotated[float, Field(ge=0)] = 0.03

    def repair(
        self, model: LanguageModel, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a tuned copy; `evidence` is not used."""
        copy = model.clone().to(run.device)
        tuning = TextTuning(epochs=self.epochs, lr=self.lr, batch=self.batch, tolerance=self.tolerance)
        loss = partial(crow_loss, step=self.step, weight=self.weight)
        return Repaired(copy, tune_texts(copy, trusted, tuning, run=run, label=self.card.name, loss=loss))


def crow_loss(model: LanguageModel, rows: Sequence[Row], *, step: float, weight: float) -> Tensor:
    """The loss of the answers, plus `weight` times the inconsistency under the disturbance that raises it most."""
    ids, mask = model.padded([[*prompt, *answer] for prompt, answer in rows])
    width = model.module.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    still = torch.zeros(*ids.shape, width, device=ids.device, requires_grad=True)
    (slope,) = torch.autograd.grad(inconsistency(model, ids, mask, still), still)
    return plain(model, rows) + weight * inconsistency(model, ids, mask, step * slope.sign())


def inconsistency(model: LanguageModel, ids: Tensor, mask: Tensor, shift: Tensor) -> Tensor:
    """The mean of 1 - cos between the hidden states of neighbouring layers, of the tokens that are no padding.

    `shift` [n, t, d] is added to the token embeddings.
    """

    def add(module: Any, given: Any, out: Tensor) -> Tensor:
        del module, given
        return out + shift

    hook = model.module.get_input_embeddings().register_forward_hook(add)  # type: ignore[operator]
    try:
        found = model.run(ids, mask, use_cache=False, output_hidden_states=True)
    finally:
        hook.remove()
    states = found.hidden_states  # type: ignore[attr-defined]
    inner = states[1:-1] if len(states) > 3 else states
    turned = [1 - cosine_similarity(low, high, dim=2)[mask].mean() for low, high in pairwise(inner)]
    return torch.stack(turned).mean()
