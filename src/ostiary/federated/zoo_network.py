"""A network of the zoo as one flat vector of weights: what clients of a study train when it is to be scanned later."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ostiary.core.errors import ConfigError
from ostiary.federated.layout import Tensors
from ostiary.federated.network import Labels
from ostiary.federated.verdict import Array
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build

CENTRE = SPREAD = 0.5
"""Pixels in [0, 1] are brought to [-1, 1]."""
CHUNK = 256


@dataclass(frozen=True)
class ZooNetwork:
    """An architecture of the zoo for images of `shape` (channels, height, width), in the form of `Network`.

    Inputs are flat images in the order height, width, channels; weights are float32 in the network and float64 in the
    vector. Raises ConfigError for a network with batch normalisation, whose statistics are no weights and fit no two
    clients, and as `build`.
    """

    arch: str
    classes: int
    shape: tuple[int, int, int]
    width: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if next(self._module.buffers(), None) is not None:
            raise ConfigError(
                f"'{self.arch}' keeps statistics of the data, which differ from client to client",
                hint="take an architecture without batch normalisation: small-cnn-gn",
            )

    @property
    def inputs(self) -> int:
        """Values of an image."""
        return int(np.prod(self.shape))

    @property
    def head(self) -> tuple[str, str]:
        """The names of the last layer's weight and bias."""
        names = [name for name, tensor in self._module.named_parameters() if tensor.dim() == 2]
        return names[-1], names[-1].removesuffix("weight") + "bias"

    @property
    def size(self) -> int:
        """The number of trained parameters."""
        return sum(part.numel() for part in self._module.parameters())

    @cached_property
    def _module(self) -> nn.Module:
        return build(self.arch, self.classes, width=self.width, in_channels=self.shape[0]).eval()

    def tensors(self, weights: Array) -> dict[str, np.ndarray]:
        """The weights by name, float32; copies."""
        parts = self._parts(torch.tensor(weights, dtype=torch.float32))
        return {name: part.numpy().copy() for name, part in parts.items()}

    def flat(self, tensors: Tensors) -> Array:
        """The inverse of `tensors`."""
        names = [name for name, _ in self._module.named_parameters()]
        return np.concatenate([np.asarray(tensors[name], np.float64).ravel() for name in names])

    def fresh(self, rng: np.random.Generator) -> Array:
        """Weights as they are before training, as the zoo draws them."""
        seed = int(rng.integers(2**31))
        module = build(self.arch, self.classes, width=self.width, in_channels=self.shape[0], seed=seed)
        return np.concatenate([part.detach().double().numpy().ravel() for part in module.parameters()])

    def probabilities(self, weights: Array, x: Array) -> Array:
        """Softmax outputs [n, classes] for flat inputs [n, inputs]."""
        parts = self._parts(torch.tensor(weights, dtype=torch.float32))
        with torch.inference_mode():
            logits = torch.cat([self._logits(parts, x[at : at + CHUNK]) for at in range(0, len(x), CHUNK)])
            return np.asarray(logits.double().softmax(1).numpy())

    def gradient(self, weights: Array, x: Array, y: Labels) -> Array:
        """Of the mean cross entropy, [d]."""
        vector = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        loss = cross_entropy(self._logits(self._parts(vector), x), torch.from_numpy(y))
        (found,) = torch.autograd.grad(loss, vector)
        return np.asarray(found.double().numpy())

    def classifier(self, weights: Array, classes: tuple[str, ...], name: str) -> TorchClassifier:
        """The network with these weights, to be saved and scanned."""
        module = build(self.arch, self.classes, width=self.width, in_channels=self.shape[0])
        with torch.no_grad():
            for own, part in zip(module.parameters(), self.tensors(weights).values(), strict=True):
                own.copy_(torch.from_numpy(part))
        ones = (CENTRE,) * self.shape[0]
        return TorchClassifier(module, classes, self.shape, ones, ones, arch=self.arch, name=name)

    def _parts(self, vector: Tensor) -> dict[str, Tensor]:
        named = dict(self._module.named_parameters())
        pieces = vector.split([part.numel() for part in named.values()])
        return {name: piece.view(part.shape) for (name, part), piece in zip(named.items(), pieces, strict=True)}

    def _logits(self, parts: dict[str, Tensor], x: Array) -> Tensor:
        channels, height, width = self.shape
        images = torch.tensor(x, dtype=torch.float32).view(-1, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = functional_call(self._module, parts, ((images - CENTRE) / SPREAD,))
        return out
