"""The architectures that Ostiary knows by name."""

import importlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ostiary.core.errors import ConfigError, ModelError

ZOO: dict[str, str] = {
    "small-cnn": "ostiary.models.small_cnn:small_cnn",
    "small-cnn-gn": "ostiary.models.small_cnn:small_cnn_gn",
    "resnet18": "ostiary.models.resnet:resnet18",
    "preact-resnet18": "ostiary.models.resnet:preact_resnet18",
    "wrn-16-1": "ostiary.models.wrn:wrn_16_1",
    "vgg11-bn": "ostiary.models.vgg:vgg11_bn",
}
"""Name to factory; a factory takes the number of classes, `width` (channels of the stem) and `in_channels`."""


def build(arch: str, classes: int, width: int | None = None, in_channels: int = 3, seed: int = 0) -> nn.Module:
    """A freshly initialised module of the zoo, in training mode; leaves the global random state alone.

    `width` is the number of channels after the first convolution, None for the published one. Convolutions are
    initialised after He et al. 2015. Raises ConfigError for an unknown name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _create(arch, classes, width, in_channels)
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module


def skeleton(arch: str, classes: int, width: int | None = None, in_channels: int = 3) -> nn.Module:
    """The module without values (on the meta device), which costs no memory. Raises as `build`."""
    with torch.device("meta"):
        return _create(arch, classes, width, in_channels)


def shape_of(arch: str, state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """The classes, the width and the input channels that the weights `state` were made for.

    Read off the first convolution and the last linear layer. Raises ModelError when they are not there, and as
    `build`.
    """
    own = skeleton(arch, classes=2).state_dict()
    stem = next(name for name, tensor in own.items() if tensor.dim() == 4)
    head = next(name for name, tensor in reversed(own.items()) if tensor.dim() == 2)
    for name, dims in ((stem, 4), (head, 2)):
        if name not in state or state[name].dim() != dims:
            raise ModelError(
                f"the weights are not those of '{arch}': no {dims}-dimensional '{name}' among {len(state)} tensors",
                hint="check --arch; " + choices(),
            )
    return state[head].shape[0], state[stem].shape[0], state[stem].shape[1]


def choices() -> str:
    """What may be given as an architecture, in words."""
    return f"known architectures: {', '.join(ZOO)}; your own code: file.py:factory or package.module:factory"


def _create(arch: str, classes: int, width: int | None, in_channels: int) -> nn.Module:
    if arch not in ZOO:
        raise ConfigError(f"unknown architecture '{arch}'", hint=choices())
    if min(classes, in_channels, 1 if width is None else width) < 1:
        raise ConfigError(f"'{arch}' needs classes, width and channels of at least 1")
    module, _, factory = ZOO[arch].partition(":")
    options = {} if width is None else {"width": width}
    made: nn.Module = getattr(importlib.import_module(module), factory)(classes, in_channels=in_channels, **options)
    return made
