"""Penultimate features of a whole set, computed in one pass or in shards, and shared by the screeners of a run."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from torch.nn.functional import adaptive_avg_pool2d

from ostiary.core.protocols import LabelledSet
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import batch_size
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference

THUMBNAIL = 8


@dataclass(frozen=True, slots=True)
class SetFeatures:
    """What one pass over a set gives: `features` [n, d] and flat `thumbnails` [n, c * 8 * 8], both float32."""

    features: np.ndarray
    thumbnails: np.ndarray


_kept: WeakKeyDictionary[TorchClassifier, tuple[str, SetFeatures]] = WeakKeyDictionary()


def features_of(model: TorchClassifier, data: LabelledSet[Images], run: Run) -> SetFeatures:
    """Features and thumbnails of every sample in order; the last set's are kept as long as the model lives."""
    kept = _kept.get(model)
    if kept is not None and kept[0] == f"{model.digest}:{data.digest}":
        return kept[1]
    found = compute_features(model, data, run)
    keep_features(model, data, found)
    return found


def keep_features(model: TorchClassifier, data: LabelledSet[Images], found: SetFeatures) -> None:
    """Let `features_of` give what was computed elsewhere for this model and this set."""
    _kept[model] = (f"{model.digest}:{data.digest}", found)


def compute_features(model: TorchClassifier, data: LabelledSet[Images], run: Run) -> SetFeatures:
    """Features and thumbnails of every sample in order, in one pass."""
    quick = fused_inference(model, channels_last=True)
    features = thumbnails = np.empty((0, 0), np.float32)
    done = 0
    for x, _ in data.batches(batch_size(model.input_shape)):
        part, small = quick.features(x.to(run.device)).float().cpu(), adaptive_avg_pool2d(x, THUMBNAIL).flatten(1)
        if not done:
            # Filled in place: small arrays kept between the large batches would keep the memory of these from reuse.
            features, thumbnails = (np.empty((len(data), t.shape[1]), np.float32) for t in (part, small))
        features[done : done + len(x)], thumbnails[done : done + len(x)] = part.numpy(), small.numpy()
        done += len(x)
        run.step(done, len(data), "features")
    return SetFeatures(features, thumbnails)
