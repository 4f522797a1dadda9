"""What a module does in one forward pass: every leaf module it calls, in order, with its tensors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a leaf module: its name, itself, the tensor it took and the tensor it gave."""

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments of a call, None when there is none."""
    return next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)


def _is_leaf(module: nn.Module) -> bool:
    # A parametrised layer (spectral norm, ...) has children, and is one layer all the same.
    return isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d) or next(module.children(), None) is None


@torch.no_grad()
def trace(module: nn.Module, x: Tensor) -> tuple[list[Call], Any]:
    """The leaf calls of one forward pass of `module` on `x`, and what the pass returned.

    The calls keep their tensors alive, so that two of them are the same object only when they are the
    same tensor. Hooks are gone afterwards. Whatever the module raises passes through.
    """
    calls: list[Call] = []
    handles = []
    for name, leaf in module.named_modules():
        if not _is_leaf(leaf):
            continue

        def note(m: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            if isinstance(output, Tensor):
                calls.append(Call(name, m, first_tensor(args, kwargs), output))

        handles.append(leaf.register_forward_hook(note, with_kwargs=True))
    try:
        return calls, module(x)
    finally:
        for handle in handles:
            handle.remove()


def head_of(calls: list[Call], output: Tensor) -> str | None:
    """The name of the module that yields the logits, None when no module does.

    It is the last leaf with parameters whose output has the values of `output` [n, k]; failing that (the model
    ends in a softmax, say) the last Linear or 1x1 Conv2d with k outputs.
    """
    for call in reversed(calls):
        trained = next(call.module.parameters(), None) is not None
        if trained and call.output.numel() == output.numel() and torch.equal(call.output.reshape_as(output), output):
            return call.name
    for call in reversed(calls):
        layer = call.module
        if isinstance(layer, nn.Linear) and layer.out_features == output.shape[1]:
            return call.name
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.out_channels == output.shape[1]:
            return call.name
    return None
