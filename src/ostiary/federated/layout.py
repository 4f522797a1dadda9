"""How the tensors of a model lie in one flat vector."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ostiary.core.errors import ModelError
from ostiary.federated.verdict import Array, Head

Tensors: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Layout:
    """The trained tensors of a model in their order, and the statistics that are no part of distances.

    `trained` are floating-point tensors that training changes; the rest (running means and variances, counters) is
    `statistics`. Both map names to shapes.
    """

    trained: dict[str, tuple[int, ...]]
    statistics: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]

    @classmethod
    def of(cls, tensors: Tensors, statistics: Collection[str] = ()) -> "Layout":
        """The layout of a model; raises ModelError for an unknown name, or a trained tensor of integers."""
        if unknown := sorted(set(statistics) - set(tensors)):
            raise ModelError(f"the model has no tensor '{unknown[0]}'", hint=f"its tensors: {', '.join(tensors)}")
        trained = {name: tensor.shape for name, tensor in tensors.items() if name not in statistics}
        for name in trained:
            if tensors[name].dtype.kind != "f":
                raise ModelError(
                    f"'{name}' holds no floating-point numbers, so that it cannot be trained",
                    hint="name it among the statistics",
                )
        rest = {name: tensors[name].shape for name in tensors if name in statistics}
        return cls(trained, rest, {name: tensor.dtype for name, tensor in tensors.items()})

    @property
    def size(self) -> int:
        """The number of trained parameters."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.trained.values()))

    def flat(self, tensors: Tensors) -> Array:
        """The trained tensors as one float64 vector [d]."""
        if not self.trained:
            return np.zeros(0)
        return np.concatenate([np.asarray(tensors[name], np.float64).ravel() for name in self.trained])

    def tensors(self, vector: Array) -> dict[str, np.ndarray]:
        """The trained tensors that a vector [d] holds, in their own types."""
        found, start = {}, 0
        for name, shape in self.trained.items():
            end = start + int(np.prod(shape, dtype=np.int64))
            found[name] = vector[start:end].reshape(shape).astype(self.dtypes[name])
            start = end
        return found

    def head(self, weight: str, bias: str) -> Head:
        """Where the last layer lies; raises ModelError for names that are no trained tensors."""
        starts, start = {}, 0
        for name, shape in self.trained.items():
            starts[name] = slice(start, start := start + int(np.prod(shape, dtype=np.int64)))
        for name in (weight, bias):
            if name not in starts:
                raise ModelError(f"'{name}' is no trained tensor", hint=f"they are: {', '.join(starts)}")
        return Head(starts[weight], starts[bias])
