"""From a path to a classifier, and back to a file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ostiary.core.errors import ConfigError, FormatError, ModelError
from ostiary.models.carried import carry, check_stamp
from ostiary.models.checkpoint import check_finite, common_prefix, parse_json, read_state, write_state
from ostiary.models.classifier import TorchClassifier
from ostiary.models.user import build_user_module, is_user_arch
from ostiary.models.zoo import ZOO, choices, shape_of, skeleton

if TYPE_CHECKING:
    from ostiary.models.onnx import OnnxPredictor

FORMAT_VERSION = "1"
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
SIZE = 32
MAX_SIDE = 4096
CHECK = "check --arch, --classes and --width"

Normalisation = tuple[tuple[float, ...] | None, tuple[float, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What `save_model` wrote about a model; every field None in a file from elsewhere."""

    architecture: str | None = None
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input: tuple[int, int, int] | None = None


def load_model(
    path: Path | str,
    arch: str | None = None,
    *,
    classes: int | Sequence[str] | None = None,
    normalize: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    width: int | None = None,
    device: torch.device | str = "cpu",
) -> TorchClassifier:
    """The classifier in a checkpoint, in an ONNX file or in a Hugging Face folder.

    `arch` is a zoo name, or `file.py:factory` / `package.module:factory`: the user's own code, whose module takes
    images in [0, 1] and may carry an attribute `input_shape` (c, h, w). It may be left out for a file that
    `save_model` wrote, for an ONNX file and for a folder. `normalize` is "none", "cifar10", "MEAN,STD" or all means
    and then all stds; without it the file's own normalisation counts, else none. Zoo weights tell `classes`, `width`
    and the channels themselves. `input_shape` is (c, h, w), 32x32 unless the file says otherwise.

    Raises FormatError (the file), ModelError (the weights, or an ONNX graph without gradients, which
    `load_predictor` takes), ConfigError (an option) or MissingExtra.
    """
    found = load_predictor(
        path, arch, classes=classes, normalize=normalize, input_shape=input_shape, width=width, device=device
    )
    if not isinstance(found, TorchClassifier):
        raise ModelError(
            f"'{found.name}' can be run, but gives no gradients: {found.reason}",
            hint="examine it from outside with `ostiary scan`, or export it again as a plain network of floats",
        )
    return found


def load_predictor(
    path: Path | str,
    arch: str | None = None,
    *,
    classes: int | Sequence[str] | None = None,
    normalize: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    width: int | None = None,
    device: torch.device | str = "cpu",
) -> "TorchClassifier | OnnxPredictor":
    """As `load_model`; an ONNX graph without gradients is no error, but a predictor on the CPU."""
    path = Path(path)
    if path.is_dir():
        from ostiary.models.huggingface import load_folder

        if arch is not None or width is not None:
            raise ConfigError(f"'{path}' is a folder with its own architecture", hint="leave out --arch and --width")
        return load_folder(path, classes, normalize, input_shape).to(device)
    if path.suffix.lower() == ".onnx":
        from ostiary.models.onnx import load_onnx

        if arch is not None or width is not None:
            raise ConfigError(f"'{path}' holds its own architecture", hint="leave out --arch and --width")
        found = load_onnx(path, classes, normalize, input_shape)
        return found.to(device) if isinstance(found, TorchClassifier) else found
    state, metadata = read_state(path)
    check_finite(state, path.name)
    header = read_header(metadata, path.name)
    arch = arch or header.architecture
    if arch is None:
        raise ModelError(f"'{path.name}' does not say its architecture", hint=f"give --arch; {choices()}")
    classes = header.class_names if classes is None else classes
    if is_user_arch(arch):
        module = build_user_module(arch)
        fill(module, state, arch)
        given = getattr(module, "input_shape", None)
        channels = next((w.shape[1] for w in module.parameters() if w.dim() == 4), 3)
    else:
        found_classes, found_width, channels = shape_of(arch, state)
        count = classes if isinstance(classes, int) else found_classes if classes is None else len(classes)
        module = skeleton(arch, count, found_width if width is None else width, channels)
        fill(module, state, arch)
        given = None
    shape = check_shape(input_shape or header.input or given or (channels, SIZE, SIZE))
    check_stamp(module, shape)
    mean, std = (header.mean, header.std) if normalize is None else parse_normalize(normalize, shape[0])
    return TorchClassifier(module, classes, shape, mean, std, arch=arch, name=path.name).to(device)


def save_model(
    classifier: TorchClassifier, path: Path | str, *, parent: str | None = None, extra: dict[str, str] | None = None
) -> None:
    """Write a classifier as safetensors whose header lets `load_model` read it without further options.

    The header holds the format version, architecture, width, classes, class names, mean, std and input shape;
    `parent` is the digest of the model it was made from and `extra` further entries. A classifier whose
    architecture is not in the zoo needs that architecture given again when it is loaded.

    Raises OutputError when `path` exists or cannot be written, ConfigError when `extra` uses a reserved name.
    """
    state = classifier.module.state_dict()
    metadata = {
        "format": "pt",
        "ostiary": FORMAT_VERSION,
        "classes": str(len(classifier.classes)),
        "class_names": json.dumps(classifier.classes),
        "input": json.dumps(classifier.input_shape),
    }
    if classifier.arch is not None:
        metadata["architecture"] = classifier.arch
    if classifier.arch in ZOO:
        metadata["width"] = str(shape_of(classifier.arch, state)[1])
    if classifier.mean is not None:
        metadata |= {"mean": json.dumps(classifier.mean), "std": json.dumps(classifier.std)}
    if parent is not None:
        metadata["parent"] = parent
    if taken := sorted(set(extra or {}) & {*metadata, "architecture", "width", "mean", "std", "parent"}):
        raise ConfigError(f"the header entry '{taken[0]}' is reserved", hint="choose another name")
    write_state(state, path, metadata | (extra or {}))


def read_header(metadata: Mapping[str, str], where: str) -> Header:
    """The header entries of `save_model`, checked; an empty Header for a file from elsewhere.

    Raises FormatError when an entry is ill-formed or of a newer version, ModelError when the architecture is not a
    zoo name: a file may not choose which code runs.
    """
    if "ostiary" not in metadata:
        return Header()
    if metadata["ostiary"] != FORMAT_VERSION:
        raise FormatError(
            f"'{where}' has header version {metadata['ostiary']!r}, this reads {FORMAT_VERSION!r}",
            hint="use a newer version of ostiary",
        )
    architecture = metadata.get("architecture")
    if architecture is not None and architecture not in ZOO:
        raise ModelError(
            f"'{where}' names the architecture {architecture!r}, and only zoo names are taken from a file",
            hint="give --arch yourself if you trust that code; " + choices(),
        )
    names = _entry(metadata, "class_names", where, lambda v: isinstance(v, str))
    mean, std = (_entry(metadata, key, where, _is_number) for key in ("mean", "std"))
    shape = _entry(metadata, "input", where, lambda v: type(v) is int)
    return Header(
        architecture=architecture,
        class_names=names,
        mean=mean,
        std=std,
        input=None if shape is None else check_shape(shape),
    )


def fill(module: nn.Module, state: Mapping[str, Tensor], arch: str) -> None:
    """Put the weights and what they carry into `module`, in its own precision; every name and shape must fit.

    Raises ModelError naming the first missing, unexpected and ill-shaped ones.
    """
    prefix = common_prefix(module.state_dict())
    state = {prefix + name: tensor for name, tensor in state.items()}
    carry(module, state)
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        # Checkpoints from before torch 0.4 lack this counter, which inference does not use.
        if name.endswith("num_batches_tracked") and name not in state:
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    missing = [f"'{name}'" for name in wanted if name not in state]
    unexpected = [f"'{name}'" for name in state if name not in wanted]
    misshaped = [
        f"'{name}' ({_dims(state[name])}, not {_dims(tensor)})"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    misshaped += [
        f"'{name}' ({state[name].dtype}, not floating)"
        for name, tensor in wanted.items()
        if name in state and tensor.is_floating_point() and not state[name].is_floating_point()
    ]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another form", misshaped))
        if names
    ]
    if parts:
        raise ModelError(f"the weights do not fit '{arch}': {'; '.join(parts)}", hint=CHECK)
    cast = {name: state[name].to(tensor.dtype) for name, tensor in wanted.items()}
    # Copied where there is something to copy into, so that weights the module shares stay shared.
    module.load_state_dict(cast, assign=any(tensor.is_meta for tensor in wanted.values()))


def parse_normalize(text: str, channels: int) -> Normalisation:
    """Mean and std, one value per channel, from "none", "cifar10", "MEAN,STD" or "m1,m2,m3,s1,s2,s3".

    Raises ConfigError for anything else.
    """
    if text == "none":
        return None, None
    if text == "cifar10" and channels == 3:
        return CIFAR10
    try:
        values = tuple(map(float, text.split(",")))
    except ValueError:
        values = ()
    if len(values) == 2:
        values = (values[0],) * channels + (values[1],) * channels
    if len(values) != 2 * channels or not all(map(math.isfinite, values)) or min(values[channels:]) <= 0:
        raise ConfigError(
            f"cannot read the normalisation '{text}' for {channels} channels",
            hint="give none, cifar10, MEAN,STD or all means and then all stds, with positive stds",
        )
    return values[:channels], values[channels:]


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """`shape` as (channels, height, width). Raises ConfigError when it is not three sensible sizes."""
    if len(shape) != 3 or not all(1 <= side <= MAX_SIDE for side in shape):
        raise ConfigError(
            f"the input shape {list(shape)} is not channels, height and width, each from 1 to {MAX_SIDE}",
            hint="give it as --input 3,32,32",
        )
    return shape[0], shape[1], shape[2]


def _entry(metadata: Mapping[str, str], key: str, where: str, good: Any) -> tuple[Any, ...] | None:
    if key not in metadata:
        return None
    value = parse_json(metadata[key], f"the header entry '{key}'", where)
    if not isinstance(value, list) or not value or not all(map(good, value)):
        raise FormatError(f"the header entry '{key}' in '{where}' is ill-formed: {metadata[key][:60]!r}")
    return tuple(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


def _dims(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single value"
