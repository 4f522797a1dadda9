"""What one pass over a whole set gives, computed once for a model and a set and shared by all that asks for it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ostiary.core.cache import ArrayCache, key_of
from ostiary.core.memory import let_go
from ostiary.core.protocols import LabelledSet
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import batch_size
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference

THUMBNAIL = 8
VERSION = "1"
"""Raised when what a cached array stands for is computed in another way."""


@dataclass(frozen=True, slots=True)
class SetFeatures:
    """What one pass over a set gives, of every sample in order.

    `features` [n, d] go into the layer that yields the `logits` [n, k]; `thumbnails` [n, c * 8 * 8] are of the images.
    float16 where that holds every value, else float32; arrays may be mapped from the disk, so take a class at a time.
    """

    features: np.ndarray
    logits: np.ndarray
    thumbnails: np.ndarray


NAMES = ("features", "logits", "thumbnails")

_kept: WeakKeyDictionary[TorchClassifier, dict[str, SetFeatures]] = WeakKeyDictionary()
KEPT = 2
"""Sets of a model that stay at hand: the suspect one and the trusted one."""


class _TooLarge(Exception):
    """A value that float16 cannot hold."""


def features_of(model: TorchClassifier, data: LabelledSet[Images], run: Run) -> SetFeatures:
    """Those of every sample: of the last two sets from memory, of others from the cache on the disk, else computed.

    Raises as `compute_features`.
    """
    kept = _kept.get(model, {}).get(f"{model.digest}:{data.digest}")
    if kept is not None:
        return kept
    cache, keys = ArrayCache.default(), [key_of(VERSION, name, model.digest, data.digest) for name in NAMES]
    cached = [array for array in map(cache.get, keys) if array is not None]
    found = SetFeatures(*cached) if len(cached) == len(NAMES) else compute_features(model, data, run, cache, keys)
    keep_features(model, data, found)
    return found


def keep_features(model: TorchClassifier, data: LabelledSet[Images], found: SetFeatures) -> None:
    """Let `features_of` give what was computed elsewhere for this model and this set."""
    others = _kept.setdefault(model, {})
    others[f"{model.digest}:{data.digest}"] = found
    for key in list(others)[:-KEPT]:
        del others[key]


def compute_features(
    model: TorchClassifier, data: LabelledSet[Images], run: Run, cache: ArrayCache, keys: Sequence[str] = NAMES
) -> SetFeatures:
    """Those of every sample in one pass, kept under `keys` in `cache`.

    Raises OutputError where the disk has no room, OutOfTime once the deadline of `run` has passed.
    """
    try:
        return _compute(model, data, run, cache, keys, np.float16)
    except _TooLarge:
        return _compute(model, data, run, cache, keys, np.float32)


def _compute(
    model: TorchClassifier,
    data: LabelledSet[Images],
    run: Run,
    cache: ArrayCache,
    keys: Sequence[str],
    dtype: type[np.floating],
) -> SetFeatures:
    quick, done = fused_inference(model, channels_last=True), 0
    arrays: list[np.ndarray] = []
    with contextlib.ExitStack() as stack:
        for x, _ in data.batches(batch_size(model.input_shape)):
            parts = (*quick.features_and_logits(x.to(run.device)), adaptive_avg_pool2d(x, THUMBNAIL).flatten(1))
            for key, part in zip(keys[len(arrays) :], parts, strict=False):
                arrays.append(stack.enter_context(cache.write(key, (len(data), part.shape[1]), dtype)))
            for array, part in zip(arrays, parts, strict=True):
                _fill(array[done : done + len(x)], part)
                let_go(array)
            done += len(x)
            run.step(done, len(data), "features")
    return SetFeatures(*arrays)


def _fill(rows: np.ndarray, values: Tensor) -> None:
    exact = values.float().cpu().numpy()
    with np.errstate(over="ignore"):
        rows[:] = exact
    if np.isinf(rows).any() and not np.isinf(exact).any():
        raise _TooLarge
