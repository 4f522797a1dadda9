"""What a repaired or hardened model carries beside its weights: bounds on what layers give, a stamp on its input.

Both are buffers with a hook that uses them, so that they are copied, moved, hashed and saved with the weights. They
work in this package alone: another program that reads the file finds tensors that its architecture does not know.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ostiary.core.errors import ModelError

BOUND = "ostiary_upper_bound"
STAMP, MASK = "ostiary_stamp", "ostiary_stamp_mask"


def bound(layer: nn.Module, most: Tensor) -> None:
    """Let channel i of what `layer` gives [n, c, h, w] be `most[i]` at the most, in place of an earlier bound."""
    if not hasattr(layer, BOUND):
        layer.register_forward_hook(_hold_below)
    layer.register_buffer(BOUND, most)


def stamp_input(module: nn.Module, pattern: Tensor, mask: Tensor) -> None:
    """Lay `pattern` [c, h, w] over every input of `module` where `mask` [h, w] is 1, in place of an earlier stamp.

    The input is what the module takes: normalised images.
    """
    if not hasattr(module, STAMP):
        module.register_forward_pre_hook(_lay_over)
    module.register_buffer(STAMP, pattern.clone())
    module.register_buffer(MASK, mask.clone())


def carried(module: nn.Module) -> str | None:
    """What `module` carries, in words; None for nothing."""
    bounds = sum(name.endswith(BOUND) for name, _ in module.named_buffers())
    parts = [f"bounds on {bounds} layers"] if bounds else []
    parts += ["a stamp on its input"] if hasattr(module, STAMP) else []
    return " and ".join(parts) or None


def carry(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Attach to `module` what the names of `state` say it carried; the values are filled in with the weights.

    Bounds go on batch normalisations with as many channels alone. What fits nowhere is left, for `fill` to refuse.
    """
    layers = dict(module.named_modules())
    for name, tensor in state.items():
        layer = layers.get(name.removesuffix(f".{BOUND}")) if name.endswith(f".{BOUND}") else None
        if isinstance(layer, nn.BatchNorm2d) and tensor.shape == (layer.num_features,):
            bound(layer, _empty(tensor, layer))
    pattern, mask = state.get(STAMP), state.get(MASK)
    if pattern is not None and mask is not None and pattern.dim() == 3 and pattern.shape[1:] == mask.shape:
        stamp_input(module, _empty(pattern, module), _empty(mask, module))


def check_stamp(module: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raise ModelError when `module` carries a stamp that is not of the shape (c, h, w) of its input."""
    pattern = getattr(module, STAMP, None)
    if pattern is not None and tuple(pattern.shape) != shape:
        given, wanted = ("x".join(map(str, sides)) for sides in (pattern.shape, shape))
        raise ModelError(f"the model carries a stamp of {given} for images of {wanted}", hint="the file is damaged")


def _empty(tensor: Tensor, module: nn.Module) -> Tensor:
    like = next(module.parameters(), tensor)
    return torch.empty(tensor.shape, dtype=like.dtype, device=like.device)


def _hold_below(layer: nn.Module, _: object, output: Tensor) -> Tensor:
    most: Tensor = getattr(layer, BOUND)
    return torch.minimum(output, most.view(1, -1, 1, 1))


def _lay_over(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    pattern, mask = getattr(module, STAMP), getattr(module, MASK)
    return (torch.where(mask > 0, pattern, args[0]), *args[1:])
