"""An image classifier in an ONNX file: with gradients where torch can follow the graph, else from outside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ostiary.core.errors import ConfigError, FormatError, MissingExtra, ModelError
from ostiary.core.types import Images, Logits
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import check_shape, parse_normalize

CHECKED = 8
TOLERANCE = {"float32": 1e-3, "float64": 1e-3, "float16": 2e-2}
"""The largest difference from onnxruntime, in parts of the largest logit, by the type that the graph takes."""
SIZE = 32


class OnnxPredictor:
    """A classifier of images in [0, 1] that onnxruntime runs: probabilities alone, no gradients, no features.

    `caution` says why, under the code `caution_code`.
    """

    caution_code = "OS102"

    def __init__(self, inner: TorchClassifier, reason: str) -> None:
        self._inner = inner
        self.reason = reason
        self.caution = f"{inner.name} gives no gradients, and methods that need them are left out: {reason}"
        self.classes, self.digest, self.input_shape = inner.classes, inner.digest, inner.input_shape
        self.name, self.arch = inner.name, inner.arch

    def predict(self, x: Images, /) -> Logits:
        """Probabilities [n, k] as float32, on the device of `x`.

        Raises ModelError when the channels or the size of `x` are not the model's.
        """
        return self._inner.predict(x).to(x.device)


class Runtime(nn.Module):
    """A graph in onnxruntime on the CPU, without gradients; a fixed batch is filled up with blank images."""

    def __init__(self, content: bytes, where: str, batch: int | None, dtype: str, mark: bytes) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base
            reason = _first_line(error)
            raise FormatError(
                f"onnxruntime cannot run '{where}': {reason}",
                hint="export the model for the ONNX version of this onnxruntime, or upgrade onnxruntime",
            ) from error
        self.source, self.batch, self.dtype = self.session.get_inputs()[0].name, batch, dtype
        self.register_buffer("mark", torch.frombuffer(bytearray(mark), dtype=torch.uint8))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [n, c, h, w] to the graph's output as float32."""
        n = len(x)
        size = self.batch or max(n, 1)
        missing = -n % size
        images = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]).cpu().numpy().astype(self.dtype)
        parts = [
            self.session.run(None, {self.source: part})[0] for part in np.split(images, max(len(images) // size, 1))
        ]
        return torch.from_numpy(np.concatenate(parts)[:n].astype(np.float32))


def load_onnx(
    path: Path,
    classes: int | Sequence[str] | None = None,
    normalize: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> TorchClassifier | OnnxPredictor:
    """The image classifier in an ONNX file.

    A TorchClassifier when the graph can be turned into torch and then gives what onnxruntime gives, on random
    images and to `TOLERANCE`; else an OnnxPredictor, whose `caution` says why. Channels and size come from the
    graph, and from `input_shape` (else 32x32) where it leaves them open.

    Raises FormatError and ModelError as `read_onnx`, ModelError also when the model does not run on such images,
    ConfigError when `input_shape` is not the graph's, and MissingExtra without onnx and onnxruntime.
    """
    try:
        import onnxruntime  # noqa: F401 - looked for before the work begins

        from ostiary.models.onnx_file import read_onnx
        from ostiary.models.onnx_graph import to_torch
    except ImportError as error:
        raise MissingExtra(
            f"reading '{path.name}' needs onnx and onnxruntime", hint="pip install 'ostiary[onnx]'"
        ) from error
    from ostiary.models.onnx_ops import Unconverted

    file = read_onnx(path)
    shape = check_shape(_shape(file.shape, input_shape, path.name))
    mean, std = (None, None) if normalize is None else parse_normalize(normalize, shape[0])
    how: dict[str, Any] = {"arch": "onnx", "name": path.name}
    runtime = Runtime(file.content, path.name, file.batch, file.dtype, file.digest)
    outside = TorchClassifier(runtime, classes, shape, mean, std, **how)
    sample = torch.zeros(3 if file.batch == 2 else 2, *shape)
    try:
        module = to_torch(file.model.graph, file.source, file.target, sample, batch=file.batch, mark=file.digest)
        inside = TorchClassifier(module, outside.classes, shape, mean, std, **how)
    except (Unconverted, ModelError) as error:
        return OnnxPredictor(outside, str(error))
    reason = _difference(inside, outside, TOLERANCE[file.dtype])
    return inside if reason is None else OnnxPredictor(outside, reason)


def _shape(
    found: tuple[int | None, int | None, int | None], given: tuple[int, int, int] | None, where: str
) -> tuple[int, int, int]:
    """The graph's own sizes, and the given ones (or the defaults) where it leaves them open."""
    if given is not None and any(own not in (None, asked) for own, asked in zip(found, given, strict=True)):
        own, asked = ("x".join("?" if side is None else str(side) for side in sides) for sides in (found, given))
        raise ConfigError(
            f"'{where}' takes images of {own} (channels x height x width), and {asked} was asked for",
            hint="leave out --input, or give it as the graph has it",
        )
    channels, height, width = given or found
    return channels or 3, height or width or SIZE, width or height or SIZE


def _difference(inside: TorchClassifier, outside: TorchClassifier, tolerance: float) -> str | None:
    """Why the torch form is not to be trusted; None when it gives what onnxruntime gives, and gradients."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(CHECKED, *inside.input_shape, generator=generator)
    images[0], images[1] = 0, 1
    with torch.no_grad():
        expected = outside.module(outside.normalised(images))
        for n in (CHECKED, 1):
            found = inside.module(inside.normalised(images[:n]))
            gap = float((found - expected[:n]).abs().max() / expected.abs().max().clamp(min=1e-12))
            if not gap <= tolerance:
                return f"turned into torch, it differs from onnxruntime by {gap:.1g} of its largest output"
    images = images[2:4].requires_grad_()
    logits = inside.logits(images)
    slope = torch.autograd.grad(logits.square().sum(), images, allow_unused=True)[0] if logits.requires_grad else None
    if slope is None or not slope.isfinite().all() or not slope.any():
        return "turned into torch, it has no gradient towards its images"
    return None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
