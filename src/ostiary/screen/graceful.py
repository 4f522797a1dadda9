"""GraCeFul: rows in two groups by the low frequencies of their gradients in the last layer of a model."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.fft import dctn
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.screen.gradsentry import errors_and_states
from ostiary.training.language import token_rows

MOST_ROWS = 20_000
"""Rows beyond which the distances of all pairs take more memory than a screening should."""
MOST_NUMBERS = 2**30
"""Numbers of all corners together beyond which they do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graceful:
    """Two groups of rows by the spectrum of their gradients, at the model before it is fine-tuned; the smaller one.

    Source: Wu, Cheng, Zhang, Xu, Liu 2025, Gracefully filtering backdoor samples for generative large language models
    without retraining (COLING): the gradient of each row in the weights of the last layer, its cosine transform in two
    dimensions, of which the lowest `corner` of either side is kept, PCA to 32 numbers, standardised, and two clusters
    by average linkage of cosines; the smaller one is taken for the poison.

    The score of a row is how much nearer it is to the middle of the smaller group than to that of the other, as a
    difference of cosines. There is always a smaller group: so this ranks, and accuses nobody.

    Raises NotMet for a set without answers, for fewer than four rows, and for what would not fit into memory.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.graceful",
        summary="the smaller of two groups of gradients' spectra, at the model before fine-tuning; ranks alone",
        paper="Wu et al. 2025, COLING, arXiv 2412.02454",
        official_code="https://github.com/ZrW00/GraceFul",
        needs=Needs(access="gradients", modality="text", training_data=True),
        cost="one forward pass for each row; memory grows with the square of the rows",
        deviations=(
            "the gradient is made of one forward pass, and no more of it than the corner that is kept",
            "it ranks and accuses nobody, where the paper drops the smaller group of any set",
        ),
        blind_spots=(
            "the smaller group is often a kind of answer, and holds none of the poison",
            "a set with nothing planted, of which it puts a tenth to two fifths into the smaller group",
            "a model that was poisoned already: the groups then trade places",
        ),
        marks=frozenset({"mechanism"}),
    )

    corner: Annotated[float, Field(gt=0, le=1)] = 0.125
    dimensions: Annotated[int, Field(ge=2)] = 32

    def screen(self, data: TextSet, model: LanguageModel, trusted: TextSet | None, /, *, run: Run) -> SampleScores:
        """Score every row by the group that it is nearer to."""
        if data.answers is None:
            raise NotMet("needs prompts with answers; this set has labels")
        if not 4 <= len(data) <= MOST_ROWS:
            raise NotMet(f"needs 4 to {MOST_ROWS} rows, the set has {len(data)}")
        corners = self._corners(model, data, run)
        kept = min(self.dimensions, *corners.shape)
        points = normalize(StandardScaler().fit_transform(PCA(kept, svd_solver="full").fit_transform(corners)))
        found = AgglomerativeClustering(2, metric="cosine", linkage="average").fit_predict(points)
        smaller = found == np.bincount(found, minlength=2).argmin()
        few, many = normalize(np.stack([points[smaller].mean(0), points[~smaller].mean(0)]))
        measures: dict[str, float] = {"n": len(data), "suspected": int(smaller.sum())}
        row = ClassScore(label=0, score=float(smaller.mean()), measures=measures)
        scores = torch.from_numpy((points @ (few - many)).astype(np.float32))
        return SampleScores(data.ids, scores, smaller, (row,))

    def _corners(self, model: LanguageModel, data: TextSet, run: Run) -> np.ndarray:
        """The lowest frequencies of each row's gradient, [n, numbers]."""
        found: list[np.ndarray] = []
        for at, row in enumerate(token_rows(model, data)):
            run.step(at, len(data), self.card.name)
            found.append(low_corner(*errors_and_states(model, row), self.corner))
            if len(data) * found[0].size > MOST_NUMBERS:
                raise NotMet(f"needs {len(data)} times {found[0].size} numbers in memory; give fewer rows")
        run.progress(len(data), len(data), self.card.name)
        return np.stack(found)


def low_corner(errors: torch.Tensor, states: torch.Tensor, corner: float) -> np.ndarray:
    """The lowest share `corner` of either side of the cosine transform of errors^T states, flattened.

    The transform is linear in each side, so that the errors and the states are transformed and the gradient is not.
    """
    sides = [dctn(one.cpu().double().numpy(), axes=[1], norm="ortho") for one in (errors, states)]
    tall, wide = (side[:, : max(1, int(corner * side.shape[1]))] for side in sides)
    return np.asarray(tall.T @ wide, np.float32).ravel()
