"""FST: fine-tuning with a new head that is pushed away from the old one, so that features must shift."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.tune import Tuning, fine_tune

TINY = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Fst:
    """Draw the head anew and fine-tune all weights, with the head kept away from where it was.

    Source: Min, Qin, Shen, Cheng 2023, Towards Stable Backdoor Purification through Feature Shift Tuning (NeurIPS;
    arXiv 2310.01875), sec. 4: minimise the loss plus alpha <w, w0>, where w0 is the head as it was, with the length of
    w held at that of w0; alpha = 0.1 on CIFAR-10, rate 0.01, 10 epochs over 1,000 images. Here <w, w0> is divided by
    the squared length of w0, so that alpha is at most what the penalty adds to the loss. Nothing is selected.

    Raises NotMet for a model whose last layer is not linear; for other errors see `fine_tune`.
    """

    card: ClassVar[Card] = Card(
        id="repair.fst",
        summary="draws the last layer anew and fine-tunes all, with the last layer pushed away from what it was",
        paper="Min et al. 2023, NeurIPS, arXiv 2310.01875",
        official_code="https://github.com/AISafety-HKUST/stable_backdoor_purification",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="epochs over the trusted images",
        deviations=(
            (
                "the penalty is relative to the squared length of the old head (up to 290 on small networks), where "
                "the published 0.1 outweighs the loss and costs 25 to 31 points of accuracy"
            ),
            "20 epochs instead of 10",
        ),
        blind_spots=(
            (
                "few trusted images: the new head is learned from them alone; accuracy falls by 10 points with 500 on "
                "a small CNN, by 3 with 1,000 on a WRN-16-1"
            ),
            "patches, in part: ASR of one stays at 81 % on a small CNN",
        ),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 0.01
    alpha: Annotated[float, Field(ge=0)] = 1.0

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a tuned copy; `evidence` is not used."""
        copy = model.clone().to(run.device)
        head = copy.module.get_submodule(copy.head_name)
        if not isinstance(head, nn.Linear):
            raise NotMet("needs a linear last layer")
        old = head.weight.detach().clone()
        length = float(old.norm())
        pull = self.alpha / max(length, TINY) ** 2
        rng, bound = run.generator("head"), 1 / math.sqrt(head.in_features)
        with torch.no_grad():
            for weight in (head.weight, head.bias):
                if weight is not None:
                    weight.copy_((2 * torch.rand(weight.shape, generator=rng) - 1) * bound)

        def backward(x: Images, want: Tensor) -> Tensor:
            loss = cross_entropy(copy.logits(x), want) + pull * (head.weight * old).sum()
            loss.backward()
            return loss.detach()

        @torch.no_grad()
        def keep_length() -> None:
            head.weight *= length / head.weight.norm()

        keep_length()
        tuning = Tuning(epochs=self.epochs, lr=self.lr)
        fine_tune(
            copy,
            load_uint8(trusted),
            trusted.labels,
            tuning,
            run=run,
            label=self.card.name,
            backward=backward,
            after_step=keep_length,
        )
        return Repaired(copy)
