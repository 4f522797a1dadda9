"""A small model of a data set when none is given."""

from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.training.loop import Recipe, train

STEPS = 2500
BATCH = 64


def quick_model(data: ImageSet, run: Run) -> TorchClassifier:
    """Train the small CNN for about 2,500 steps on `data` and return it."""
    module = build("small-cnn", len(data.classes), in_channels=data.shape[0], seed=run.seed)
    model = TorchClassifier(
        module, data.classes, data.shape, arch="small-cnn", name=f"small-cnn trained on {data.name}"
    )
    return train(model, data, quick_recipe(data), run=run).model


def quick_recipe(data: ImageSet) -> Recipe:
    """About 2,500 steps over the set."""
    epochs = min(20, max(2, round(STEPS * BATCH / len(data))))
    return Recipe(epochs=epochs, batch=BATCH, lr=0.1, padding=2, flip=False)
