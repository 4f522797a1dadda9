"""A small network in NumPy, and local training: what a client of a study does. Float64, exactly repeatable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ostiary.core.errors import ConfigError
from ostiary.federated.layout import Tensors
from ostiary.federated.verdict import Array

Change: TypeAlias = Callable[[Array, Array], Array]
"""Takes weights [d] and a gradient [d], gives the gradient to use."""
Project: TypeAlias = Callable[[Array], Array]
"""Takes weights [d], gives the weights to go on with."""
Labels: TypeAlias = NDArray[np.int64]
DRAWS = 1000
"""How often unlike shards are drawn before that is given up."""


class Trainable(Protocol):
    """What clients of a study train: a network whose weights are one flat vector [d]."""

    @property
    def inputs(self) -> int:
        """Values of a sample."""
        ...

    @property
    def head(self) -> tuple[str, str]:
        """The names of the last layer's weight and bias."""
        ...

    def tensors(self, weights: Array) -> dict[str, np.ndarray]:
        """The weights by name; copies."""
        ...

    def flat(self, tensors: Tensors) -> Array:
        """The inverse of `tensors`."""
        ...

    def fresh(self, rng: np.random.Generator) -> Array:
        """Weights as they are before training."""
        ...

    def probabilities(self, weights: Array, x: Array) -> Array:
        """Softmax outputs [n, classes] for inputs [n, inputs]."""
        ...

    def gradient(self, weights: Array, x: Array, y: Labels) -> Array:
        """Of the mean cross entropy, [d]."""
        ...


@dataclass(frozen=True, slots=True)
class Network:
    """Inputs, one hidden layer with ReLU, classes; the weights are one flat vector that `tensors` names."""

    inputs: int = 64
    hidden: int = 64
    classes: int = 10

    @property
    def head(self) -> tuple[str, str]:
        """The names of the last layer's weight and bias."""
        return "head.weight", "head.bias"

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self.hidden * (self.inputs + 1) + self.classes * (self.hidden + 1)

    def _parts(self, weights: Array) -> tuple[Array, Array, Array, Array]:
        a = self.hidden * self.inputs
        b, c = a + self.hidden, a + self.hidden + self.classes * self.hidden
        return (
            weights[:a].reshape(self.hidden, self.inputs),
            weights[a:b],
            weights[b:c].reshape(self.classes, self.hidden),
            weights[c:],
        )

    def tensors(self, weights: Array) -> dict[str, np.ndarray]:
        """The weights by name; copies."""
        names = ("hidden.weight", "hidden.bias", "head.weight", "head.bias")
        return {name: part.copy() for name, part in zip(names, self._parts(weights), strict=True)}

    def flat(self, tensors: Tensors) -> Array:
        """The inverse of `tensors`."""
        return np.concatenate([np.asarray(tensor, np.float64).ravel() for tensor in tensors.values()])

    def fresh(self, rng: np.random.Generator) -> Array:
        """Weights as they are before training: uniform within 1 / sqrt(fan in)."""
        first, second = self.inputs**-0.5, self.hidden**-0.5
        return np.concatenate(
            [
                rng.uniform(-first, first, self.hidden * (self.inputs + 1)),
                rng.uniform(-second, second, self.classes * (self.hidden + 1)),
            ]
        )

    def probabilities(self, weights: Array, x: Array) -> Array:
        """Softmax outputs [n, classes] for inputs [n, inputs]."""
        w1, b1, w2, b2 = self._parts(weights)
        logits = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
        logits -= logits.max(1, keepdims=True)
        np.exp(logits, out=logits)
        return np.asarray(logits / logits.sum(1, keepdims=True))

    def gradient(self, weights: Array, x: Array, y: Labels) -> Array:
        """Of the mean cross entropy, [d]."""
        w1, b1, w2, b2 = self._parts(weights)
        hidden = np.maximum(x @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        logits -= logits.max(1, keepdims=True)
        np.exp(logits, out=logits)
        error = logits / logits.sum(1, keepdims=True)
        error[np.arange(len(y)), y] -= 1
        error /= len(y)
        back = (error @ w2) * (hidden > 0)
        return np.concatenate([(back.T @ x).ravel(), back.sum(0), (error.T @ hidden).ravel(), error.sum(0)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Local training: SGD with momentum."""

    epochs: int = 2
    batch: int = 32
    lr: float = 0.1
    momentum: float = 0.9


def fit(
    network: Trainable,
    weights: Array,
    x: Array,
    y: Labels,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    change: Change | None = None,
    project: Project | None = None,
) -> Array:
    """The weights after local training; `weights` stay as they are.

    `change` may alter each gradient, `project` the weights after each step.
    """
    weights, speed = weights.copy(), np.zeros_like(weights)
    for _ in range(recipe.epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y), recipe.batch):
            rows = order[start : start + recipe.batch]
            gradient = network.gradient(weights, x[rows], y[rows])
            if change is not None:
                gradient = change(weights, gradient)
            speed = recipe.momentum * speed + gradient
            weights -= recipe.lr * speed
            if project is not None:
                weights = project(weights)
    return weights


def shards(
    labels: Labels, clients: int, rng: np.random.Generator, *, alpha: float | None = None, least: int = 10
) -> list[NDArray[np.int64]]:
    """Rows for each client: alike at random, or classes drawn from a Dirichlet distribution of concentration `alpha`.

    Drawn again until everybody has `least` rows (Hsu et al. 2019, arXiv 1909.06335, draw classes for each client;
    here, as in most code since, clients for each class). Raises ConfigError where a thousand draws did not do it.
    """
    if alpha is None:
        return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), clients)]
    for _ in range(DRAWS):
        parts: list[list[int]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            cuts = (np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(rows)).astype(int)
            for part, more in zip(parts, np.split(rows, cuts), strict=True):
                part.extend(more.tolist())
        if min(map(len, parts)) >= least:
            return [np.sort(np.array(part, np.int64)) for part in parts]
    raise ConfigError(
        f"no split at alpha {alpha:g} gives {clients} clients {least} samples each",
        hint="raise alpha, or take fewer clients",
    )
