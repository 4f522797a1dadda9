"""What the pictures of a set give before there is a model: coarse grids of colours and edges, and an order of rows."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, pad

from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Images
from ostiary.screen.classes import MIN_MEMBERS

CELLS = 8
"""Cells a side of a thumbnail and of the grid of edges."""
EDGES_AT = 16
"""Pixels a side at which edges are measured: finer ones tell a picture's texture, and triggers, more than its thing."""
DIRECTIONS = 8
BATCH = 256


def own_order(ids: Sequence[str]) -> np.ndarray:
    """Rows in the order of their ids: what is drawn in it does not depend on how a set was shuffled."""
    return np.argsort(np.array(ids), kind="stable")


def large_classes(data: LabelledSet[Images]) -> np.ndarray:
    """The labels that have samples enough to be told from others; raises NotMet when fewer than two do."""
    counts = np.bincount(data.labels.numpy(), minlength=len(data.classes))
    found = np.flatnonzero(counts >= MIN_MEMBERS)
    if len(found) < 2:
        raise NotMet(f"needs two classes of at least {MIN_MEMBERS} samples, {len(found)} have as many")
    return found


def thumbnail(images: Images) -> Tensor:
    """Mean colours [n, c, 8, 8] of images [n, c, h, w]."""
    return adaptive_avg_pool2d(images, CELLS)


def edges(images: Images) -> Tensor:
    """How strong the edges of each direction are, [n, 8, 8, 8] (direction, row, column), of images [n, c, h, w].

    Histograms of oriented gradients (Dalal, Triggs 2005) of a grey picture of 16 x 16, each cell over the
    strength of all directions around it.
    """
    grey = pad(adaptive_avg_pool2d(images.mean(1, keepdim=True), EDGES_AT), (1, 1, 1, 1), mode="replicate")
    across, down = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2], grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    turn = torch.atan2(down, across) % torch.pi * (DIRECTIONS / torch.pi)
    below = turn.floor()
    bins = torch.zeros(len(grey), DIRECTIONS, EDGES_AT, EDGES_AT)
    for side, share in ((below, 1 - (turn - below)), (below + 1, turn - below)):
        bins.scatter_add_(1, side.long() % DIRECTIONS, strength * share)
    cells = adaptive_avg_pool2d(bins, CELLS)
    around = avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False).sqrt()
    return cells / (around + 0.01)
