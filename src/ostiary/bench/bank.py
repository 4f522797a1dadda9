"""A bank of models: fp16 weights with their recipes, so that others start from the very same models."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ostiary.attacks.truth import Truth, load_truth, save_truth
from ostiary.core.errors import FormatError
from ostiary.core.files import atomic, write_text
from ostiary.models.classifier import TorchClassifier

SCHEMA = 1
INDEX = "bank.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """One model of a bank."""

    path: Path

    def weights(self, fresh: TorchClassifier) -> TorchClassifier:
        """`fresh` with the stored weights; raises FormatError when they are not for it."""
        try:
            state = {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in load(self.path.read_bytes()).items()
            }
            fresh.module.load_state_dict(state)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FormatError(
                f"'{self.path}' does not hold this model: {error}", hint="export the bank anew"
            ) from error
        return fresh.with_module(fresh.module)

    def truth(self) -> Truth:
        """The truth of an attack that trained or edited the model; one that poisons data repeats it instead."""
        return load_truth(self.path.with_suffix(".truth"))


class Bank:
    """A folder of models. Raises FormatError when it is none or of a newer schema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            document = json.loads((path / INDEX).read_text(encoding="utf-8"))
            if document["schema"] > SCHEMA:
                raise FormatError(f"the bank '{path}' was written by a newer ostiary", hint="upgrade ostiary")
            self.models: dict[str, Any] = {row["key"]: row for row in document["models"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"'{path}' is no bank: {error}", hint="`ostiary bench export --bank DIR` writes one"
            ) from error

    def find(self, key: str) -> Stored | None:
        """The model of a key, None when the bank has none."""
        return Stored(self.path / f"{key[:24]}.safetensors") if key in self.models else None


def write_bank(path: Path, models: list[tuple[dict[str, Any], TorchClassifier, Truth | None]]) -> int:
    """Write models (row, classifier, truth where it cannot be repeated) into the new folder `path`; gives the bytes."""
    with atomic(path) as folder:
        folder.mkdir()
        for row, model, truth in models:
            file = folder / f"{row['key'][:24]}.safetensors"
            file.write_bytes(save({name: _half(tensor) for name, tensor in sorted(model.module.state_dict().items())}))
            if truth is not None:
                save_truth(truth, file.with_suffix(".truth"))
        rows = sorted((row for row, _, _ in models), key=lambda row: str(row["key"]))
        write_text(folder / INDEX, json.dumps({"schema": SCHEMA, "models": rows}, indent=1, allow_nan=False) + "\n")
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _half(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.is_floating_point() else tensor
