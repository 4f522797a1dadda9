"""LoRA adapters in folders as peft writes them: read, written, merged into the model that they were made for."""

import copy
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ostiary.core.errors import FormatError, ModelError
from ostiary.core.files import atomic
from ostiary.models.checkpoint import check_finite, read_state
from ostiary.models.huggingface import read_json
from ostiary.models.language import LanguageModel
from ostiary.models.text_folder import NOTES

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


MOST = 2**31
"""More than any rank or alpha."""


def is_adapter_folder(path: Path) -> bool:
    """True for a folder that holds an adapter."""
    return (path / CONFIG).is_file()


@dataclass(frozen=True, slots=True)
class Adapter:
    """Two matrices for each of some layers of a base: what they add to its weight is scale · B A.

    `pairs` are A [r, in] and B [out, r] by the name of the layer. `turned` says that the base stores its weights as
    [in, out]. `base` and `base_digest` are what it says of the model that it is for, empty where it says nothing.
    Source: Hu et al. 2022, LoRA (ICLR), eq. 3.
    """

    name: str
    scale: float
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    turned: bool = False
    base: str = ""
    base_digest: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over what it adds: scale, layers and matrices."""
        whole = hashlib.sha256(repr((self.scale, self.turned)).encode())
        for name, pair in sorted(self.pairs.items()):
            for part in pair:
                whole.update(repr((name, tuple(part.shape))).encode())
                whole.update(part.detach().float().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(down.shape[0] for down, _ in self.pairs.values())


class Adapted(LanguageModel):
    """A copy of `base` with `adapter` merged into its weights, which it still knows; `base` is untouched.

    `doubt` says why it may be an adapter for another base, None where nothing speaks for that. Raises ModelError where
    the base has not these layers, or is not the one that the adapter was trained on.
    """

    doubt: str | None = None

    def __init__(self, base: LanguageModel, adapter: Adapter) -> None:
        digest = base.digest
        check_base(adapter, digest)
        module = copy.deepcopy(base.module)
        with torch.no_grad():
            for weight, change in changes(adapter, module):
                weight.add_(change.to(weight))
        name = f"{adapter.name} on {base.name}"
        super().__init__(module, base.tokenizer, base.template, end=base.end, name=name, caution=base.caution)
        self.adapter, self.base_digest = adapter, digest


def read_adapter(folder: Path | str) -> Adapter:
    """The adapter in a folder.

    The scale is alpha / r, or alpha / sqrt(r) for rank-stabilised ones. Raises FormatError for what is missing or
    damaged, ModelError for an adapter of another kind.
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
    notes = read_json(folder / NOTES) if (folder / NOTES).is_file() else {}
    named, digest = (str(one or "") for one in (config.get("base_model_name_or_path"), notes.get("base")))
    turned = bool(config.get("fan_in_fan_out"))
    return Adapter(folder.name, scale, _pairs(state, folder.name), turned, named, digest)


def load_adapter(folder: Path | str, base: LanguageModel) -> Adapted:
    """A copy of `base` with the adapter in `folder` merged into its weights; raises as `read_adapter` and `Adapted`.

    The digest of the base tells whether it is the one, where the adapter holds it; else only names can be compared.
    """
    adapter = read_adapter(folder)
    found = Adapted(base, adapter)
    if not adapter.base_digest:
        found.doubt = _doubt(adapter, base)
    return found


def check_base(adapter: Adapter, digest: str) -> None:
    """Raise ModelError where the adapter was trained on a base of another digest."""
    if adapter.base_digest not in ("", digest):
        raise _other_base(
            adapter.name, f"it was trained on {adapter.base_digest[:12]} ('{adapter.base}'), this one is {digest[:12]}"
        )


def _doubt(adapter: Adapter, base: LanguageModel) -> str | None:
    if not adapter.base:
        return f"'{adapter.name}' does not say which base it is for, and '{base.name}' has its layers"
    if _last_part(adapter.base) in map(_last_part, base.known_as):
        return None
    return f"'{adapter.name}' is for the base '{adapter.base}' by its {CONFIG}, and was put on '{base.name}'"


def _last_part(name: str) -> str:
    """What a path or a name on a hub ends with, in lower case."""
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1].lower()


def save_adapter(adapter: Adapter, folder: Path, *, base: str) -> None:
    """Write an adapter as a folder that peft and `read_adapter` read; `base` names the model that it is for.

    The digest of that model is kept where the adapter knows it. Raises OutputError as `atomic`.
    """
    rank = adapter.rank
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": adapter.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": adapter.turned,
        "target_modules": sorted(adapter.pairs),
        "inference_mode": True,
    }
    state = {
        f"{PREFIX}{name}.lora_{part}.weight": tensor.detach().cpu().contiguous()
        for name, pair in adapter.pairs.items()
        for part, tensor in zip("AB", pair, strict=True)
    }
    with atomic(folder) as temporary:
        temporary.mkdir()
        save_file(state, temporary / WEIGHTS[0], {"format": "pt"})
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        if adapter.base_digest:
            notes = {"format": "1", "base": adapter.base_digest}
            (temporary / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def changes(adapter: Adapter, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Each weight of a base with what the adapter adds to it.

    Raises ModelError where the base has not its layers, or a weight would no longer be finite.
    """
    for name, (down, up) in adapter.pairs.items():
        weight = _weight(module, name, adapter.name)
        shape = (up.shape[0], down.shape[1])
        if (shape[::-1] if adapter.turned else shape) != tuple(weight.shape):
            here = _dims(tuple(weight.shape))
            raise _other_base(adapter.name, f"'{name}' is {_dims(shape)} there and {here} here")
        change = adapter.scale * (up.double() @ down.double())
        change = change.T if adapter.turned else change
        if not (weight.detach() + change.to(weight)).isfinite().all():
            raise ModelError(
                f"'{adapter.name}' adds to '{name}' what makes its weights NaN or infinite",
                hint="the training diverged or the file is damaged; do not use it",
            )
        yield weight, change


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
    rank, alpha = config.get("r"), cast("float", config.get("lora_alpha"))
    if type(rank) is not int or type(alpha) not in (int, float) or not (1 <= rank <= MOST and abs(alpha) <= MOST):
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


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
