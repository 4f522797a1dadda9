"""Neural Cleanse: reverse a small trigger for every class and look for a class whose trigger is far too small."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.form_search import PatchSearch
from ostiary.scan.recover import patch_evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuralCleanse(PatchSearch):
    """Recover the smallest trigger towards every class; a class whose trigger is an outlier is suspicious.

    Source: Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao 2019, Neural Cleanse (IEEE S&P), sec. IV;
    schedule constants from the authors' README. Half of the trusted images drive the search, the
    other half only tell how often the final trigger flips unseen images.
    """

    card: ClassVar[Card] = Card(
        id="scan.neural-cleanse",
        summary="recovers the smallest trigger towards every class and compares their sizes",
        paper="Wang et al. 2019, IEEE S&P, doi 10.1109/SP.2019.00031",
        official_code="https://github.com/bolunwang/backdoor",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="steps x classes x batch forward and backward passes to the input",
        code="OS201",
        version="3",
        limits=(Limit(measure="size_ratio", low=3.0), Limit(measure="flip_held_out", low=0.75)),
        size="mask_l1",
        deviations=(
            "a round of the penalty schedule is 4 batches instead of a pass over 1,000 images",
            "images of the target class count neither in the loss nor in the success",
            "all classes start from the same mask and pattern and see the same batches",
            "the verdict rests on a mask 3 times smaller than the median and on 75 % flips of held-out images",
            "the anomaly index is shown where no search ended early, but is no limit (docs/decisions/0005)",
            "a class that no mask sends images to counts in the median with the last mask tried",
            "after 8 and 20 rounds the search ends for all but the 10 and 3 smallest masks and 2 of typical size",
            "classes whose search ended early count with the size they would have if they shrank as the typical ones",
        ),
        families=("patch",),
        blind_spots=(
            "triggers over the whole image: blends, warps, sinusoids, quantisation",
            "all-to-all and source-specific backdoors",
            "models with fewer than three classes",
            "clean-label triggers that need the target's own content",
        ),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(gt=0)] = 500
    success: Annotated[float, Field(gt=0, le=1)] = 0.99

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model`; raises nothing of its own beyond what reading `trusted` raises."""
        return patch_evidence(self.recovered(model, trusted, run), self.card.name, self.success, run)
