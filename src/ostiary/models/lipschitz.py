"""How far each channel of a convolution can stretch its input."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import norms_after


@torch.no_grad()
def channel_bounds(model: TorchClassifier) -> Mapping[str, Tensor]:
    """The Lipschitz bound of every channel of every convolution, by the name of its module.

    The spectral norm of its kernel, as a matrix [inputs, height x width], times the gain of the batch normalisation
    after it (Zheng et al. 2022, ECCV). The norm is the root of the largest eigenvalue of the smaller of the matrix's
    two squares, in double precision: 9x9 for a 3x3 kernel, where a singular value decomposition would cost more.
    """
    norms = norms_after(model)
    found = {}
    for name, conv in model.module.named_modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        kernel = conv.weight.double().cpu().flatten(2).numpy()
        if kernel.shape[1] < kernel.shape[2]:
            kernel = kernel.transpose(0, 2, 1)
        # NumPy's, since torch's threads wait for each other at every one of the thousands of small matrices.
        largest = np.linalg.eigvalsh(np.matmul(kernel.transpose(0, 2, 1), kernel))[:, -1]
        bound = torch.from_numpy(largest).clamp(min=0).sqrt()
        norm = norms.get(name)
        if norm is not None and norm.running_var is not None:
            gain = (norm.running_var + norm.eps).rsqrt().double().cpu()
            bound = bound * (gain if norm.weight is None else gain * norm.weight.double().cpu().abs())
        found[name] = bound
    return found
