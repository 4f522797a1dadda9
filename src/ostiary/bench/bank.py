"""A bank of models: fp16 weights with their recipes, so that others start from the very same models."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ostiary.attacks.truth import Truth, load_truth, save_truth
from ostiary.bench.cells import ModelSpec
from ostiary.bench.store import MODEL, Row, Store
from ostiary.core.errors import FormatError
from ostiary.core.files import atomic, write_text
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model

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
        """The truth of the attack on it."""
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
            why = getattr(error, "strerror", None) or error
            raise FormatError(
                f"'{path}' is no bank: {INDEX}: {why}", hint="`ostiary bench export --bank DIR` writes one"
            ) from error

    def find(self, key: str) -> Stored | None:
        """The model of a key, None when the bank has none."""
        return Stored(self.path / f"{key[:24]}.safetensors") if key in self.models else None


def export_bank(store: Store, models: Sequence[ModelSpec], path: Path) -> tuple[int, int]:
    """Write those of `models` that the store has into the new folder `path`; gives how many, and the bytes.

    Each has its weights in fp16, its recipe and, under attack, its truth. Raises OutputError when
    `path` exists, FormatError when the store has none of the models.
    """
    made = {model.key: row for model in models if (row := store.model(model.key)) is not None}
    if not made:
        raise FormatError(f"'{store.path}' has no model of this grid yet", hint="run it first")
    with atomic(path) as folder:
        folder.mkdir()
        for model in models:
            if model.key in made:
                _write(store, model, folder / f"{model.key[:24]}.safetensors")
        rows = [_about(row) for row in sorted(made.values(), key=lambda row: str(row["key"]))]
        write_text(folder / INDEX, json.dumps({"schema": SCHEMA, "models": rows}, indent=1, allow_nan=False) + "\n")
        return len(made), sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _write(store: Store, model: ModelSpec, file: Path) -> None:
    state = load_model(store.model_dir(model.key) / MODEL).module.state_dict()
    file.write_bytes(save({name: _half(tensor) for name, tensor in sorted(state.items())}))
    if model.kind == "attack":
        save_truth(load_truth(store.truth_dir(model.key)), file.with_suffix(".truth"))


def _about(row: Row) -> Row:
    """What a bank says of a model: recipe, digest, seconds of its training; paths of one machine are left out."""
    spec = {**row["spec"], "data": {**row["spec"]["data"]}}
    for part in ("train", "test"):
        spec["data"][part] = Path(spec["data"][part]).name
    return {"key": row["key"], "digest": row["digest"], "seconds": row["arithmetic"], "spec": spec}


def _half(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.is_floating_point() else tensor
