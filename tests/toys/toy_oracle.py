"""A screener that wants the truth and not the data: it tries every way that comes to mind, and notes what it got."""

import gc
import importlib
import inspect
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier

FORBIDDEN = ("attack", "truth", "poison", "badnets", "covers")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyOracle:
    """Looks everywhere but at the pixels."""

    card: ClassVar[Card] = Card(
        id="screen.toy-oracle",
        summary="tries to reach the truth",
        paper="none: an example",
        needs=Needs(modality="images", training_data=True),
        cost="none",
        code="OS301",
        limits=(Limit(measure="separation", low=0.0),),
        blind_spots=("everything",),
    )

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier | None, trusted: None, /, *, run: Run
    ) -> SampleScores:
        """Score by what a leak would leave: ids, order, class sizes, and every guess at the attacker's draws."""
        store = Path(data._pixels.filename).resolve().parents[3]
        reached = {name: _tried(way) for name, way in _ways(store).items()}
        run.artifact("reached", np.frombuffer(json.dumps(reached).encode(), np.uint8))
        n = len(data)
        numbers = np.array([int(identity) for identity in data.ids], float)
        guesses = {
            "ids": numbers,
            "order": np.arange(n, dtype=float),
            "ids of ids": np.array([zlib.crc32(identity.encode()) for identity in data.ids], float),
            "seed": torch.randperm(n, generator=run.generator("order")).double().numpy(),
            "choice": torch.randperm(n, generator=Run(seed=run.seed).generator("choice")).double().numpy(),
        }
        for name, guess in guesses.items():
            run.artifact(f"guess-{name}", guess)
        scores = torch.from_numpy(numbers)
        rows = tuple(
            ClassScore(label=label, score=1.0, measures={"separation": 1.0, "n": 1.0, "suspected": 1.0})
            for label in range(len(data.classes))
        )
        return SampleScores(tuple(data.ids), scores, np.ones(n, bool), rows)


def _ways(store: Path) -> dict[str, Callable[[], Any]]:
    sealed = store / "sealed"
    return {
        "import attacks": lambda: importlib.import_module("ostiary.attacks"),
        "import metrics": lambda: importlib.import_module("ostiary.bench.metrics"),
        "read attack code": lambda: (
            Path(str(sys.modules["ostiary"].__file__))
            .parent.joinpath("attacks", "truth.py")
            .read_text(encoding="utf-8")
        ),
        "list the store": lambda: os.listdir(store),
        "list sealed": lambda: os.listdir(sealed),
        "salt": lambda: (sealed / "salt").read_text(encoding="utf-8"),
        "cells by a child": lambda: subprocess.run(
            ["/bin/sh", "-c", f"cat {store}/s*/cells/*.json"], check=True, capture_output=True
        ),
        "truth by a child": lambda: subprocess.run(
            ["/bin/sh", "-c", f"cat {store}/s*/t*/*/t*"], check=True, capture_output=True
        ),
        "truth natively": lambda: torch.from_file(str(sealed / "salt"), size=8, dtype=torch.uint8),
        "objects": lambda: _one(o for o in gc.get_objects() if type(o).__name__ in ("Truth", "Poisoned", "ModelSpec")),
        "frames": lambda: _one(
            word
            for frame in inspect.stack()
            for word in FORBIDDEN
            if word in json.dumps(str(frame.frame.f_locals.get("job", "")))
        ),
        "arguments": lambda: _one(word for word in FORBIDDEN if word in " ".join(sys.argv).lower()),
        "parent's memory": lambda: Path(f"/proc/{os.getppid()}/mem").open("rb").close(),
        "other models": lambda: os.listdir(store / "models"),
        "the test part": lambda: subprocess.run(
            ["/bin/sh", "-c", f"cat {store}/sets/*/pixels.npy"], check=True, capture_output=True
        ),
    }


def _one(found: Any) -> Any:
    return next(iter(found))


def _tried(way: Callable[[], Any]) -> str:
    try:
        way()
    except BaseException as error:  # noqa: BLE001 - every refusal counts
        return type(error).__name__
    return "got it"
