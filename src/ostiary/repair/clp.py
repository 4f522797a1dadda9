"""Channel-Lipschitzness pruning: cut the channels that can stretch their input most, without any data."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import norm_names_after
from ostiary.models.lipschitz import channel_bounds
from ostiary.repair.channels import Channel, silence


@dataclass(frozen=True, kw_only=True, slots=True)
class Clp:
    """Prune every channel whose Lipschitz bound lies more than `u` standard deviations above the mean of its layer.

    Source: Zheng, Tang, Li, Liu 2022, Data-free Backdoor Removal based on Channel Lipschitzness (ECCV; arXiv
    2208.03111), sec. 4: the bound of a channel is the spectral norm of its kernel times the gain of the batch
    normalisation after it; u = 3 for CIFAR-10. No data are used, and none to choose `u` by.
    """

    card: ClassVar[Card] = Card(
        id="repair.clp",
        summary="prunes the channels that can stretch their input most, without any data",
        paper="Zheng et al. 2022, ECCV, arXiv 2208.03111",
        official_code="https://github.com/rkteddy/channel-Lipschitzness-based-pruning",
        needs=Needs(access="gradients", modality="images"),
        cost="one eigenvalue for each channel",
        deviations=("convolutions without a batch normalisation after them are pruned by their spectral norm alone",),
        blind_spots=(
            "backdoors that no single channel carries",
            "a steep channel that the task needs: it is cut all the same, and accuracy falls by up to 31 points",
            "layers of ten channels and fewer, where none can lie so far out",
        ),
        marks=frozenset({"mechanism"}),
    )

    u: Annotated[float, Field(gt=0)] = 3.0

    def repair(
        self,
        model: TorchClassifier,
        trusted: LabelledSet[Images] | None,
        evidence: ModelEvidence | None,
        /,
        *,
        run: Run,
    ) -> Repaired:
        """Give a pruned copy, unchanged where no channel is so steep; neither `trusted` nor `evidence` is used."""
        bounds, norms = channel_bounds(model), norm_names_after(model)
        steep: list[Channel] = []
        for name, values in bounds.items():
            if len(values) > 1:
                far = values > values.mean() + self.u * values.std()
                steep += [(name, int(row)) for row in far.nonzero().squeeze(1)]
        copy = model.clone().to(run.device)
        silence(copy, [(norms.get(name, name), row) for name, row in steep], bias=True)
        total = sum(len(values) for values in bounds.values())
        return Repaired(copy, {"pruned": f"{len(steep)} of {total} channels"})
