"""Penultimate features of a whole set, computed in one pass and shared by the screeners of a run."""

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
    key = f"{model.digest}:{data.digest}"
    kept = _kept.get(model)
    if kept is not None and kept[0] == key:
        return kept[1]
    quick = fused_inference(model, channels_last=True)
    features: list[np.ndarray] = []
    thumbnails: list[np.ndarray] = []
    done = 0
    for x, _ in data.batches(batch_size(model.input_shape)):
        features.append(quick.features(x.to(run.device)).float().cpu().numpy())
        thumbnails.append(adaptive_avg_pool2d(x, THUMBNAIL).flatten(1).numpy())
        done += len(x)
        run.progress(done, len(data), "features")
    found = SetFeatures(np.concatenate(features), np.concatenate(thumbnails))
    _kept[model] = (key, found)
    return found
