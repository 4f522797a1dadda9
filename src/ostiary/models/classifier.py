"""An image classifier: a module, what its outputs mean and how its inputs are normalised."""

import copy
import hashlib
import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ostiary.core.errors import ModelError
from ostiary.core.types import Features, Images, Logits
from ostiary.models.trace import first_tensor, head_of, trace

PROBES = 4
FROM_PROBABILITIES = (
    "the model returns probabilities; its logits are their logarithms, so gradients fade where it is certain"
)


class TorchClassifier:
    """A torch module as a `Classifier` of images in [0, 1].

    `module` maps normalised images [n, c, h, w] to logits (or probabilities) [n, k]; it is put into eval mode.
    `classes` are the k names, or their number; None counts the outputs and names them "0", "1", .... `mean` and
    `std` hold one value per channel; both None means the module takes images in [0, 1]. `digest` replaces the
    computed one (for a copy that is the same model in another form). `arch` and `name` say where it comes from.
    `caution` says why logits may be poor, None when they are the model's own.

    Raises ModelError when the module cannot take such images, when its output is not [n, k] of finite values,
    or when k is not the number of classes.
    """

    def __init__(
        self,
        module: nn.Module,
        classes: Sequence[str] | int | None,
        input_shape: tuple[int, int, int],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        digest: str | None = None,
        arch: str | None = None,
        name: str = "",
    ) -> None:
        self.module = module.eval()
        self.input_shape = input_shape
        self.mean, self.std = _normalisation(mean, std, input_shape[0])
        self.arch = arch
        self.name = name
        self._digest = digest
        output = self._first_output()
        self.classes = _class_names(classes, output.shape[1])
        self._probabilities = _are_probabilities(output)
        self._logit_layer = self._layer_before_softmax() if self._probabilities else None
        self.caution = FROM_PROBABILITIES if self._probabilities and self._logit_layer is None else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weight = next(self.module.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the sorted state dict (name, dtype, shape, bytes), the mean and the std.

        Computed at each access, as the weights may have been trained since.
        """
        return self._digest or digest_of(self.module, (self.mean, self.std))

    @cached_property
    def head_name(self) -> str:
        """The name of the module that yields the logits, found in one forward pass.

        Raises ModelError when no module does.
        """
        calls, output = trace(self.module, self.probe_normalised())
        name = head_of(calls, output)
        if name is None:
            raise ModelError(
                "no layer of the model yields its logits, so it has no features",
                hint="let the model end in an nn.Linear (or 1x1 nn.Conv2d) with one output per class",
            )
        return name

    def probe(self) -> Images:
        """A fixed batch of random images of the model's input shape, on its device."""
        weight = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        images = torch.rand(PROBES, *self.input_shape, generator=torch.Generator().manual_seed(0))
        return images.to(self.device, torch.float32 if weight is None else weight.dtype)

    def probe_normalised(self) -> Images:
        """The probe as the module takes it."""
        return self.normalised(self.probe())

    def normalised(self, x: Images) -> Images:
        """Images in [0, 1] as the module takes them, on its device. Raises as `logits`."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ModelError(
                f"the model takes images of {_dims(self.input_shape)} (channels x height x width), "
                f"was given {_dims(x.shape[1:])}",
                hint="give the input shape of the model, or data of that shape",
            )
        x = x.to(self.device)
        if self.mean is None or self.std is None:
            return x
        return (x - x.new_tensor(self.mean).view(1, -1, 1, 1)) / x.new_tensor(self.std).view(1, -1, 1, 1)

    def logits(self, x: Images, /) -> Logits:
        """Logits [n, k] of images in [0, 1], differentiable with respect to `x`.

        Raises ModelError when the channels or the size of `x` are not the model's.
        """
        if self._logit_layer is not None:
            return self._output_of(self._logit_layer, x)
        output: Tensor = self.module(self.normalised(x))
        return output.clamp(min=1e-12).log() if self._probabilities else output

    @torch.no_grad()
    def predict(self, x: Images, /) -> Logits:
        """Probabilities [n, k] as float32, no gradients. Raises as `logits`."""
        return self.logits(x).float().softmax(dim=1)

    def features(self, x: Images, /) -> Features:
        """The input of the module `head_name`, flattened to [n, d], no gradients. Raises as `logits`."""
        return self.features_and_logits(x)[0]

    def features_and_logits(self, x: Images, /) -> tuple[Features, Logits]:
        """The input of the module `head_name`, flattened to [n, d], and the logits [n, k], of one pass, no gradients.

        Raises as `logits`.
        """
        features, logits = self.input_of(self.head_name, x)
        return features.flatten(1), logits

    @torch.no_grad()
    def input_of(self, name: str, x: Images, /) -> tuple[Tensor, Logits]:
        """What the module `name` takes, at its last call, and the logits [n, k], of one pass, no gradients.

        Raises ModelError when that is no tensor, and as `logits`.
        """
        caught: list[Tensor | None] = []

        def catch(_: nn.Module, args: Any, kwargs: Any) -> None:
            caught.append(first_tensor(args, kwargs))

        handle = self.module.get_submodule(name).register_forward_pre_hook(catch, with_kwargs=True)
        try:
            logits = self.logits(x)
        finally:
            handle.remove()
        if not caught or caught[-1] is None:
            raise ModelError(f"the layer '{name}' takes no tensor, so the model has no features")
        return caught[-1], logits

    def activations(self, x: Images, names: Sequence[str], /) -> dict[str, Tensor]:
        """Outputs of the named modules in one forward pass, with gradients unless the caller turned them off.

        A module that is called more than once gives its last output. Raises ModelError when a name is no module,
        is not called, or gives no tensor; and as `logits`.
        """
        kept: dict[str, Tensor] = {}
        modules = dict(self.module.named_modules())
        if unknown := [name for name in names if name not in modules]:
            first = ", ".join(repr(name) for name in list(modules)[1:6])
            raise ModelError(f"the model has no module '{unknown[0]}'", hint=f"its modules begin {first}")

        def keep(name: str, _: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                # A later layer may work in place on this very tensor.
                kept[name] = output.clone()

        hooks = [modules[name].register_forward_hook(partial(keep, name)) for name in names]
        try:
            self.logits(x)
        finally:
            for hook in hooks:
                hook.remove()
        if lost := [name for name in names if name not in kept]:
            raise ModelError(f"the module '{lost[0]}' gave no tensor in a forward pass")
        return kept

    def clone(self) -> "TorchClassifier":
        """A deep copy that shares no weights, in eval mode; its digest is its own."""
        return self.with_module(copy.deepcopy(self.module))

    def with_module(self, module: nn.Module, digest: str | None = None) -> "TorchClassifier":
        """The same classifier around another module. Raises as the constructor."""
        return TorchClassifier(
            module, self.classes, self.input_shape, self.mean, self.std, digest=digest, arch=self.arch, name=self.name
        )

    def to(self, device: torch.device | str) -> "TorchClassifier":
        """Move the weights to `device`, in place; returns itself."""
        self.module.to(device)
        return self

    def _layer_before_softmax(self) -> str | None:
        """The layer whose output, through a softmax, is what the module returns; None when there is none."""
        calls, output = trace(self.module, self.probe_normalised())
        name = head_of(calls, output)
        found = next((call.output for call in reversed(calls) if call.name == name), None)
        if found is None or found.numel() != output.numel():
            return None
        same = torch.allclose(found.reshape_as(output).float().softmax(dim=1), output.float(), atol=1e-4)
        return name if same else None

    def _output_of(self, name: str, x: Images) -> Tensor:
        """What the layer `name` gives for `x` in one forward pass, [n, k]."""
        caught: list[Tensor] = []
        handle = self.module.get_submodule(name).register_forward_hook(lambda _, __, output: caught.append(output))
        try:
            self.module(self.normalised(x))
        finally:
            handle.remove()
        return caught[-1].flatten(1)

    @torch.no_grad()
    def _first_output(self) -> Tensor:
        shape = _dims(self.input_shape)
        try:
            output = self.module(self.probe_normalised())
        except ModelError:
            raise
        except Exception as error:  # the module may be anybody's code
            reason = str(error).partition("\n")[0]
            raise ModelError(
                f"the model cannot be run on images of {shape}: {reason}",
                hint="give the input shape of the model as channels, height, width",
            ) from error
        if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[0] != PROBES or output.shape[1] < 2:
            form = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(f"the model gives {form} for {PROBES} images, not one row of two or more logits each")
        if not output.isfinite().all():
            raise ModelError(f"the model gives NaN or infinity on images of {shape}", hint="its weights are damaged")
        return output


def last_conv_name(classifier: TorchClassifier) -> str:
    """The name of the Conv2d that is called last in a forward pass. Raises ModelError when there is none."""
    calls, _ = trace(classifier.module, classifier.probe_normalised())
    for call in reversed(calls):
        if isinstance(call.module, nn.Conv2d):
            return call.name
    raise ModelError("the model calls no nn.Conv2d, so it has no last convolution")


def _class_names(classes: Sequence[str] | int | None, outputs: int) -> tuple[str, ...]:
    names = tuple(map(str, range(outputs))) if classes is None else classes
    names = tuple(map(str, range(names))) if isinstance(names, int) else tuple(names)
    if len(names) != outputs:
        raise ModelError(f"the model has {outputs} outputs, {len(names)} classes were given", hint="check --classes")
    if len(set(names)) != len(names):
        raise ModelError("two classes have the same name", hint="check --classes")
    return names


def _normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if mean is None and std is None:
        return None, None
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise ModelError(f"the normalisation {mean}, {std} is not one mean and one std for each of {channels} channels")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ModelError(f"the normalisation {mean}, {std} is not finite with positive std")
    return tuple(map(float, mean)), tuple(map(float, std))


def _are_probabilities(output: Tensor) -> bool:
    sums = output.float().sum(dim=1)
    return bool((output >= 0).all() and (output <= 1).all() and ((sums - 1).abs() < 1e-3).all())


def digest_of(module: nn.Module, beside: object = None) -> str:
    """SHA-256 (hex) over the sorted state dict (name, dtype, shape, bytes) and the repr of what stands beside it."""
    whole = hashlib.sha256(repr(beside).encode())
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):  # a module's extra state
            whole.update(f"\0{name}\0{tensor!r}".encode())
            continue
        whole.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        whole.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
