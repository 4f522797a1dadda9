"""A copy of a classifier for quick forward passes and input gradients."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ostiary.core.types import Logits
from ostiary.models.carried import BOUND, bound
from ostiary.models.classifier import TorchClassifier
from ostiary.models.trace import trace

TOLERANCE = 1e-3

Pair = tuple[str, str]


def fused_inference(classifier: TorchClassifier, *, channels_last: bool = False) -> TorchClassifier:
    """A frozen copy with each batch normalisation folded into the convolution before it.

    The copy gives the same logits (checked on random images, to 1e-3 of their scale; pairs that fail the check stay
    apart), needs no weight gradients and has the original's digest and normalisation. `channels_last` lays the
    weights out for GPUs and for bfloat16. Precision is the caller's: use autocast or `.module.to(dtype)`.
    """
    plain = _fused(classifier, [])
    probe = plain.probe()
    with torch.no_grad():
        expected = plain.logits(probe)
        kept = _pairs(plain)
        fused = _fused(classifier, kept)
        if not _agree(fused.logits(probe), expected):
            candidates, kept = kept, []
            for pair in candidates:
                if _agree(_fused(classifier, [*kept, pair]).logits(probe), expected):
                    kept.append(pair)
            fused = _fused(classifier, kept)
    if channels_last:
        fused.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    return fused


def norm_names_after(classifier: TorchClassifier) -> dict[str, str]:
    """The name of the batch normalisation called next on what a convolution gave, by that of the convolution."""
    return dict(_pairs(classifier))


def norms_after(classifier: TorchClassifier) -> dict[str, nn.BatchNorm2d]:
    """The same batch normalisations themselves, by the name of the convolution."""
    found = {}
    for conv_name, norm_name in _pairs(classifier):
        norm = classifier.module.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - tells the type checker
        found[conv_name] = norm
    return found


def _pairs(classifier: TorchClassifier) -> list[Pair]:
    """Names of a convolution and of the batch normalisation called next on the very tensor it gave."""
    calls, _ = trace(classifier.module, classifier.probe_normalised())
    names = [call.name for call in calls]
    return [
        (conv.name, norm.name)
        for conv, norm in pairwise(calls)
        if isinstance(conv.module, nn.Conv2d)
        and isinstance(norm.module, nn.BatchNorm2d)
        and norm.module.running_mean is not None
        and norm.input is conv.output
        and names.count(conv.name) == names.count(norm.name) == 1
    ]


def _fused(classifier: TorchClassifier, pairs: list[Pair]) -> TorchClassifier:
    module = copy.deepcopy(classifier.module).eval().requires_grad_(False)
    for conv_name, norm_name in pairs:
        conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - tells the type checker
        module.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
        module.set_submodule(norm_name, plain := nn.Identity())
        if hasattr(norm, BOUND):
            bound(plain, getattr(norm, BOUND))
    return classifier.with_module(module, digest=classifier.digest)


def _agree(found: Logits, expected: Logits) -> bool:
    scale: Tensor = expected.abs().max()
    return bool((found - expected).abs().max() <= TOLERANCE * scale)
