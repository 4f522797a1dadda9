"""Spectral Signatures: poison leaves a trace along the strongest direction of a class's features."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg import eigh

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.parting import part_line

ARTIFACT = "spectral-signatures"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralSignatures:
    """Squared projection of each sample on its class's top principal direction.

    Source: Tran, Li, Madry 2018, Spectral Signatures in Backdoor Attacks (NeurIPS), algorithm 1.
    The paper removes the 1.5 eps n highest scores of each class, for a stated bound eps on the
    poison. Nobody knows eps: here the cut is where the projections part best into two groups, and a
    class counts only when that parting is clear and the group does not look like its label.
    """

    card: ClassVar[Card] = Card(
        id="screen.spectral-signatures",
        summary="squared projection of each sample on the top principal direction of its class",
        paper="Tran, Li, Madry 2018, NeurIPS, arXiv 1811.00636",
        official_code="https://github.com/MadryLab/backdoor_data_poisoning",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="one forward pass over the data; one eigenvector per class",
        code="OS302",
        limits=(Limit(measure="separation", low=0.82), Limit(measure="minority", high=0.45)),
        deviations=(
            "the share to remove is not given: the cut is the best parting of the projections in two",
            "the limit is on that parting less 0.3 times the support of the group's label by nearest neighbours",
        ),
        blind_spots=(
            "strongly imbalanced classes",
            "clean-label and adaptive poison whose features mix with the class",
            "more than 45 % of a class poisoned",
        ),
        marks=frozenset({"mechanism"}),
    )

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample with the paper's score; the smaller side of a class's cut is suspected."""
        return screen_classes(data, model, lambda features, _: _split(features), artifact=ARTIFACT, run=run)


def _split(features: np.ndarray) -> Split:
    centred = features - features.mean(0)
    d = centred.shape[1]
    # The top right singular vectors are the top eigenvectors of the d x d Gram matrix: far cheaper than an SVD.
    gram = (centred.T @ centred).astype(np.float64)
    _, vectors = eigh(gram, subset_by_index=[max(0, d - 2), d - 1])
    points = centred @ vectors[:, ::-1].astype(np.float32)
    projection = points[:, 0].astype(np.float64)
    suspected, parting = part_line(projection)
    return Split(
        score=parting,
        measure="parting",
        scores=projection**2,
        suspected=suspected,
        points=points,
    )
