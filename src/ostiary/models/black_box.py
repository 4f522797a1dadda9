"""A model that only answers: a function from images to probabilities or labels, checked and counted."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ostiary.core.card import Access
from ostiary.core.errors import EndpointError
from ostiary.core.types import Images, Logits

PROBES = 4
TOLERANCE = 0.05
"""How far probabilities may be from summing up to 1: servers round them."""


class BlackBox:
    """A `Predictor` around any function from images in [0, 1] to probabilities [n, k] or labels [n].

    `answer` gets float32 images [n, c, h, w] on the CPU, at most `batch` at a time, and gives a tensor, an array or
    nested lists. Rows are class probabilities; they may be rounded, and are divided by their sum. Whole numbers in one
    dimension are labels, which become one-hot rows; then `classes`, the names or their number, must be given.
    `access` says which of both it gave at the probe: four fixed images, asked once. `queries` counts images.

    `digest` is SHA-256 over the name, the classes and the answers to the probe, to three digits: all that can be
    known of a model from outside. It changes when these answers do; two models that agree on them share it.

    Raises EndpointError when an answer has another shape than one row for each image, holds NaN, infinity or no
    probabilities, or names a class that is not there.
    """

    arch = None
    caution = None

    def __init__(
        self,
        answer: Callable[[Images], Any],
        classes: Sequence[str] | int | None = None,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        *,
        name: str = "function",
        batch: int = 64,
    ) -> None:
        self.answer, self.input_shape, self.name, self.batch = answer, input_shape, name, batch
        self.queries = 0
        self.classes: tuple[str, ...] = ()
        images = torch.rand(PROBES, *input_shape, generator=torch.Generator().manual_seed(0))
        first = self._asked(images)
        self.access: Access = "labels" if first.dim() == 1 else "probabilities"
        self.classes = self._names(classes, first)
        self.digest = self._digest(self._rows(first))

    def predict(self, x: Images, /) -> Logits:
        """Probabilities (one-hot where only labels are given) [n, k] as float32, on the device of `x`."""
        if not len(x):
            return x.new_zeros(0, len(self.classes))
        return torch.cat([self._rows(self._asked(part)) for part in x.detach().cpu().float().split(self.batch)]).to(x)

    def _asked(self, x: Tensor) -> Tensor:
        """What the function gives for one batch: finite numbers, [n, k] or [n]."""
        self.queries += len(x)
        given = self.answer(x)
        try:
            found = given.detach().cpu() if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
        except (TypeError, ValueError):
            raise self._bad("what is no array of numbers") from None
        if (
            found.dim() not in (1, 2)
            or len(found) != len(x)
            or (self.classes and found.dim() == 2 and found.shape[1] != len(self.classes))
        ):
            wanted = f"[{len(x)}, {len(self.classes) or 'k'}] or [{len(x)}]"
            raise self._bad(f"the shape {list(found.shape)} for {len(x)} images, not {wanted}")
        if found.is_complex() or found.dtype == torch.bool or not bool(found.isfinite().all()):
            raise self._bad("NaN, infinity or no numbers")
        return found

    def _rows(self, found: Tensor) -> Tensor:
        k = len(self.classes)
        if (found.dim() == 1) != (self.access == "labels"):
            raise self._bad("labels and probabilities in turn")
        if found.dim() == 1:
            labels = found.long()
            if bool((labels != found).any()) or int(labels.min()) < 0 or int(labels.max()) >= k:
                raise self._bad(f"labels that are not whole numbers from 0 to {k - 1}")
            return one_hot(labels, k).float()
        rows = found.float()
        total = rows.sum(1, keepdim=True)
        if bool((rows < 0).any()) or bool(((total - 1).abs() > TOLERANCE).any()):
            raise self._bad("rows that are no probabilities: below 0, or not summing up to 1")
        return rows / total

    def _names(self, classes: Sequence[str] | int | None, first: Tensor) -> tuple[str, ...]:
        if classes is None and first.dim() == 1:
            raise EndpointError(
                f"'{self.name}' answers with labels alone, which do not tell how many classes there are",
                hint="give their number, with --classes N",
            )
        names = first.shape[1] if classes is None else classes
        names = tuple(map(str, range(names) if isinstance(names, int) else names))
        if len(names) < 2 or (first.dim() == 2 and first.shape[1] != len(names)):
            given = f"{first.shape[1]} numbers" if first.dim() == 2 else "labels"
            raise EndpointError(
                f"'{self.name}' answers with {given}, for {len(names)} classes",
                hint="check --classes; there are two at least",
            )
        return names

    def _digest(self, rows: Tensor) -> str:
        told = (rows * 1000).round().to(torch.int64).numpy().astype("<i8").tobytes()
        return hashlib.sha256(repr((self.name, self.classes, self.input_shape)).encode() + told).hexdigest()

    def _bad(self, what: str) -> EndpointError:
        return EndpointError(f"'{self.name}' gave {what}", hint="see docs/scan.md for what a black box answers")
