"""W2SDefense: a language model learns trusted rows, and a little of what a small trusted model makes of them."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.models.tokens import positions_of
from ostiary.repair.fine_mixing import base_of
from ostiary.repair.text_tune import Row, TextTuning, plain, tune_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class W2s:
    """Tune a small teacher on trusted rows, and a copy of the suspect model on their answers and the teacher's chances.

    Source: Zhao, Xu, Nguyen, Tuan 2025, Unlearning Backdoor Attacks for LLMs with Weak-to-Strong Knowledge Distillation
    (Findings of ACL), sec. 3, and the published code: the loss is `answers` times that of the answers, plus `soft`
    times the divergence from the teacher's chances at `heat`, plus `states` times the mean square between hidden states
    at the end of the model, those of the teacher through a fixed map where their widths differ. `base` is the teacher
    before it is tuned: a small model, or the one that the suspect was made from, with the same tokens, which is trusted
    and not examined here. `tolerance` is in nats a token. A published baseline, which no command picks by itself.

    Raises NotMet without a base, or for one with other tokens, or that reads fewer.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.w2s",
        summary="tunes a language model on trusted rows and on what a small trusted one makes of them",
        paper="Zhao et al. 2025, Findings of ACL, arXiv 2410.14425",
        official_code="https://github.com/shuaizhao95/Unlearning",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="epochs over half of the trusted rows, for a small model and for a copy with both of them",
        deviations=(
            "all weights are tuned, not an adapter of low rank",
            "a teacher of another width is compared through a fixed map that keeps lengths",
            "where to stop is chosen on held-out trusted rows; the paper fixes the epochs",
        ),
        blind_spots=(
            "a teacher that is itself backdoored",
            "triggers that no trusted row comes near, next to all that there are: the teacher is asked of these alone",
        ),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 15
    lr: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0)] = 16
    tolerance: Annotated[float, Field(ge=0)] = 0.03
    answers: Annotated[float, Field(ge=0)] = 3.0
    soft: Annotated[float, Field(ge=0)] = 0.01
    states: Annotated[float, Field(ge=0)] = 0.001
    heat: Annotated[float, Field(gt=0)] = 2.0
    base: Any = None

    def repair(
        self, model: LanguageModel, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a tuned copy; `evidence` is not used."""
        base = base_of(self.base, LanguageModel)
        if model.tokenizer.get_vocab() != base.tokenizer.get_vocab() or model.vocabulary != base.vocabulary:
            raise NotMet(f"needs a teacher with the same tokens; '{base.name}' has others", hint="give another --base")
        if positions_of(base.module) < positions_of(model.module):
            raise NotMet(f"needs a teacher that reads as far; '{base.name}' does not", hint="give another --base")
        tuning = TextTuning(epochs=self.epochs, lr=self.lr, batch=self.batch, tolerance=self.tolerance)
        # With the layout of the suspect's prompts, whatever that of the base is: both are given the same rows.
        teacher = model.with_module(deepcopy(base.module)).to(run.device)
        taught = tune_texts(teacher, trusted, tuning, run=run, label=f"{self.card.name}-teacher")
        for weight in teacher.module.parameters():
            weight.requires_grad_(False)
        copy = model.clone().to(run.device)
        bridge = _bridge(teacher, copy, run)
        loss = partial(
            distilled,
            teacher=teacher,
            bridge=bridge,
            answers=self.answers,
            soft=self.soft,
            states=self.states,
            heat=self.heat,
        )
        chosen = tune_texts(copy, trusted, tuning, run=run, label=self.card.name, loss=loss)
        return Repaired(copy, {"teacher": f"{base.name}, {taught['epochs']}", **chosen})


def distilled(
    model: LanguageModel,
    rows: Sequence[Row],
    *,
    teacher: LanguageModel,
    bridge: Tensor | None,
    answers: float,
    soft: float,
    states: float,
    heat: float,
) -> Tensor:
    """The loss of the answers, the divergence from the teacher's chances, and the distance of hidden states, weighed.

    Both of the latter are means over the tokens of the answers; the divergence is times the square of `heat`.
    """
    ids, mask = model.padded([[*prompt, *answer] for prompt, answer in rows])
    counted = torch.zeros_like(mask)
    for at, (_, answer) in enumerate(rows):
        counted[at, max(0, ids.shape[1] - len(answer) - 1) : -1] = True
    counted &= mask
    ours = model.run(ids, mask, use_cache=False, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher.run(ids, mask, use_cache=False, output_hidden_states=True)
    cold, warm = ((one.logits[counted].float() / heat).log_softmax(1) for one in (theirs, ours))  # type: ignore[attr-defined]
    apart = kl_div(warm, cold, reduction="batchmean", log_target=True) * heat**2
    own, other = (one.hidden_states[-1][counted].float() for one in (ours, theirs))  # type: ignore[attr-defined]
    return (
        answers * plain(model, rows)
        + soft * apart
        + states * mse_loss(own, other if bridge is None else other @ bridge)
    )


def _bridge(teacher: LanguageModel, model: LanguageModel, run: Run) -> Tensor | None:
    """A fixed map that keeps lengths, from the teacher's hidden states to the model's; None where they are as wide."""
    low, high = (int(one.module.get_input_embeddings().weight.shape[1]) for one in (teacher, model))  # type: ignore[operator]
    if low == high:
        return None
    wide = torch.randn(max(low, high), min(low, high), generator=run.generator("bridge"))
    whole: Tensor = torch.linalg.qr(wide).Q
    return (whole.T if low < high else whole).to(model.device)
