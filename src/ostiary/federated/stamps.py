"""Trusted samples under stamps that mean nothing: what a server trains on so that a trigger does not take."""

import numpy as np

from ostiary.federated.network import Labels
from ostiary.federated.verdict import Array

PLAIN, NOISY, FAINT = range(3)
FAINTEST, STRONGEST = 0.05, 0.3
"""How much of a pattern is mixed in."""


def stamped(x: Array, y: Labels, rng: np.random.Generator, *, copies: int = 2) -> tuple[Array, Labels]:
    """The samples [n, h, w] or [n, h, w, c] in [0, 1], and `copies` of each under a random stamp with its own label.

    A stamp is a rectangle of at most half the height and width, of one brightness or of black and white dots, or a
    pattern of dots over the whole image, mixed in with 5 to 30 %; each kind for a third of the copies. Source: none;
    ours, after random erasing (Zhong et al. 2017, arXiv 1708.04896). Updates of attackers make the model look at a
    mark; those of a server that trained on these make it look past marks of these kinds. Rare samples under a wrong
    label are not held by it.
    """
    images, labels = [x], [y]
    for _ in range(copies):
        marked = x.copy()
        for image in marked:
            _stamp(image, rng)
        images.append(marked)
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def _stamp(image: Array, rng: np.random.Generator) -> None:
    """Change one image in place."""
    kind = int(rng.integers(3))
    if kind == FAINT:
        share = rng.uniform(FAINTEST, STRONGEST)
        image[:] = (1 - share) * image + share * rng.integers(0, 2, image.shape)
        return
    height, width = (int(rng.integers(1, max(1, side // 2) + 1)) for side in image.shape[:2])
    top, left = int(rng.integers(image.shape[0] - height + 1)), int(rng.integers(image.shape[1] - width + 1))
    part = image[top : top + height, left : left + width]
    part[:] = rng.random(part.shape[2:]) if kind == PLAIN else rng.integers(0, 2, part.shape)
