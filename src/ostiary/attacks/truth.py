"""What only the bench may know: the trigger, the label map, the poisoned samples and their true labels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ostiary.attacks.triggers import KINDS, Trigger, kind_of, tensors_of
from ostiary.core.errors import FormatError
from ostiary.core.files import atomic
from ostiary.core.seal import TRUTH_SUFFIX
from ostiary.core.types import Labels
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier

Mapping = Literal["all-to-one", "all-to-all", "source-specific", "clean-label"]
"""Which label a triggered item shall get."""

NONE = -1
"""No class of the set: the true label of an image that shows none of them, and the target of an attack without one."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The sealed half of a poisoned set or of a model that was trained or edited by an attack.

    `poisoned` maps the id of each poisoned sample, as numbered in the poisoned set, to its true
    label, -1 for an image that shows none of the classes; `covers` are the ids of samples that carry a
    trigger under their true label; both are empty where an attack poisons no set. `rate` is the share
    of the whole training set that was asked for, or of each batch where the attack controls the
    training. `source` counts for source-specific maps. `trigger` is the one to stamp on test items.
    Indiscriminate poisoning has none: its mapping says so, trigger is None, target and source are -1.
    """

    attack: str
    params: dict[str, Any]
    mapping: Mapping | Literal["indiscriminate"]
    target: int
    source: int
    classes: tuple[str, ...]
    seed: int
    rate: float
    source_digest: str
    poisoned: dict[str, int]
    covers: tuple[str, ...]
    trigger: Trigger | None

    def relabel(self, labels: Labels) -> Labels:
        """The label the attacker wants for triggered items of the given true labels."""
        return wanted(labels, self.mapping, self.target, self.source, len(self.classes))


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A poisoned set and its truth; the two part ways as soon as they are written."""

    data: ImageSet
    truth: Truth


@dataclass(frozen=True, slots=True)
class PoisonedModel:
    """A model with a backdoor and its truth, of an attack that trains or edits models."""

    model: TorchClassifier
    truth: Truth


def wanted(
    labels: Labels, mapping: Mapping | Literal["indiscriminate"], target: int, source: int, classes: int
) -> Labels:
    """The label map of a triggered item: everything to `target`, y to y + 1, or `source` alone to `target`.

    An indiscriminate attack wants nothing in particular: labels stay.
    """
    if mapping == "indiscriminate":
        return labels
    if mapping == "all-to-all":
        return (labels + 1) % classes
    if mapping == "source-specific":
        return torch.where(labels == source, target, labels)
    return torch.full_like(labels, target)


def truth_path(data: Path) -> Path:
    """Where the truth of the poisoned set at `data` lies: `DIR.truth` beside it."""
    return data.with_name(data.name + TRUTH_SUFFIX)


def save_truth(truth: Truth, folder: Path) -> None:
    """Write `truth.json` and `trigger.safetensors` into a new folder; never a pickle."""
    document = {
        "format": 1,
        "attack": truth.attack,
        "params": truth.params,
        "mapping": truth.mapping,
        "target": truth.target,
        "source": truth.source,
        "classes": list(truth.classes),
        "seed": truth.seed,
        "rate": truth.rate,
        "source_digest": truth.source_digest,
        "poisoned": truth.poisoned,
        "covers": list(truth.covers),
        "trigger": None if truth.trigger is None else kind_of(truth.trigger),
    }
    tensors = {} if truth.trigger is None else tensors_of(truth.trigger)
    with atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "truth.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (temporary / "trigger.safetensors").write_bytes(save(tensors))


def load_truth(folder: Path) -> Truth:
    """Read a truth folder; raises FormatError when it is missing or ill-formed."""
    try:
        document = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        tensors = load((folder / "trigger.safetensors").read_bytes())
        if document.pop("format") != 1:
            raise FormatError(f"'{folder}' has an unknown truth format", hint="upgrade ostiary")
        lists = {name: tuple(document[name]) for name in ("classes", "covers")}
        kind = document["trigger"]
        trigger = None if kind is None else KINDS[kind](**tensors)
        return Truth(**{**document, **lists, "trigger": trigger})
    except FileNotFoundError as error:
        raise FormatError(
            f"no truth at '{folder}': {Path(str(error.filename)).name} is missing",
            hint="`ostiary poison DATA -o DIR` writes it to DIR.truth",
        ) from error
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise FormatError(f"'{folder}' is not a truth folder: {error}") from error
