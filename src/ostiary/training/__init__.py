"""One training loop, fast and seeded, and the accuracy of what it trains."""

from ostiary.training.loop import Recipe, Trained, train
from ostiary.training.measure import accuracy, per_class, predicted, predictions, rate

__all__ = ["Recipe", "Trained", "accuracy", "per_class", "predicted", "predictions", "rate", "train"]
