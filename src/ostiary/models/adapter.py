"""LoRA adapters in folders as peft writes them, merged into the language model that they were made for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ostiary.core.errors import FormatError, ModelError
from ostiary.models.checkpoint import check_finite, read_state
from ostiary.models.huggingface import read_json
from ostiary.models.language import LanguageModel

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
PLAIN: Mapping[str, tuple[object, ...]] = {
    "use_dora": (None, False),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "bias": (None, "none"),
    "layers_to_transform": (None, []),
    "megatron_config": (None,),
}
"""Entries of the config with the values under which an adapter is two matrices for each layer, and no more."""


def is_adapter_folder(path: Path) -> bool:
    """True for a folder that holds an adapter."""
    return (path / CONFIG).is_file()


def load_adapter(folder: Path | str, base: LanguageModel) -> LanguageModel:
    """A copy of `base` with the adapter in `folder` merged into its weights: W + scale · B A; `base` is untouched.

    Source: Hu et al. 2022, LoRA (ICLR), eq. 3; the scale is alpha / r, or alpha / sqrt(r) for rank-stabilised ones.
    Raises FormatError for what is missing or damaged, ModelError for an adapter of another kind, or for another base.
    """
    folder = Path(folder)
    if not is_adapter_folder(folder):
        raise FormatError(f"the folder '{folder}' holds no {CONFIG}", hint="give the folder that peft wrote")
    config = read_json(folder / CONFIG)
    scale = _scale(config, folder.name)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise FormatError(f"'{folder.name}' has no weights: no {' and no '.join(WEIGHTS)}", hint="download it again")
    state = read_state(file)[0]
    check_finite(state, f"{folder.name}/{file.name}")
    merged = base.clone()
    merged.name = f"{folder.name} on {base.name}"
    with torch.no_grad():
        for name, (down, up) in _pairs(state, folder.name).items():
            weight = _weight(merged.module, name, folder.name)
            change = scale * (up.float() @ down.float())
            change = change.T if config.get("fan_in_fan_out") else change
            if change.shape != weight.shape:
                raise _other_base(folder.name, f"'{name}' is {_dims(change)} there and {_dims(weight)} here")
            weight += change.to(weight)
    return merged


def _scale(config: Mapping[str, Any], where: str) -> float:
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"OS101 not examined: '{where}' is an adapter of the kind {config.get('peft_type')!r}, not LORA",
            hint="merge it into its base with the program that made it, and give the whole model",
        )
    for key, plain in PLAIN.items():
        if config.get(key) not in plain:
            raise ModelError(
                f"OS101 not examined: '{where}' has {key} = {config[key]!r}, which is more than two matrices a layer",
                hint="merge it into its base with peft, and give the whole model",
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise FormatError(f"'{where}/{CONFIG}' gives no rank r and lora_alpha", hint="download it again")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pairs(state: Mapping[str, Tensor], where: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The two matrices of every layer, by its name in the base."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, dot, part = key.removesuffix(".weight").rpartition(".lora_")
        if not dot or part not in ("A", "B") or tensor.dim() != 2:
            raise ModelError(
                f"OS101 not examined: '{where}' holds '{key}', which is no matrix of a LoRA layer",
                hint="merge it into its base with peft, and give the whole model",
            )
        found.setdefault(name.removeprefix(PREFIX), {})[part] = tensor
    for name, parts in found.items():
        if len(parts) != 2 or parts["A"].shape[0] != parts["B"].shape[1]:
            raise FormatError(f"'{where}' has no pair of fitting matrices for '{name}'", hint="download it again")
    if not found:
        raise FormatError(f"'{where}' holds no weights", hint="download it again")
    return {name: (parts["A"], parts["B"]) for name, parts in found.items()}


def _weight(module: nn.Module, name: str, where: str) -> Tensor:
    try:
        weight = module.get_submodule(name).weight
    except AttributeError as error:
        raise _other_base(where, f"there is no layer '{name}'") from error
    if not isinstance(weight, Tensor):
        raise _other_base(where, f"'{name}' has no weight")
    return weight


def _other_base(where: str, reason: str) -> ModelError:
    return ModelError(
        f"'{where}' is an adapter for another base: {reason}",
        hint=f"give the base that its {CONFIG} names (base_model_name_or_path)",
    )


def _dims(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
