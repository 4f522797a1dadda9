"""Tensor types with their shapes.

The axis letters: n samples, c channels, h height, w width, k classes, d features.
"""

from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

Images: TypeAlias = Float[Tensor, "n c h w"]
"""A batch of images in [0, 1]; normalisation happens inside the model wrapper."""

Labels: TypeAlias = Int[Tensor, " n"]
"""Class indices."""

Logits: TypeAlias = Float[Tensor, "n k"]
"""Unnormalised class scores, or probabilities where the function says so."""

Features: TypeAlias = Float[Tensor, "n d"]
"""One flat activation vector per sample."""

Scores: TypeAlias = Float[Tensor, " n"]
"""One score per sample; higher is more suspicious in every method."""
