"""What only the bench may know: the trigger, the label map, the poisoned samples and their true labels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ostiary.core.errors import FormatError
from ostiary.core.files import atomic
from ostiary.core.seal import TRUTH_SUFFIX
from ostiary.core.types import Images, Labels
from ostiary.data.base import ImageSet
from ostiary.perturb import stamp

Mapping = Literal["all-to-one", "all-to-all"]


@dataclass(frozen=True, slots=True)
class StampTrigger:
    """A trigger that is one mask ([h, w]) and one pattern ([c, h, w]), both in [0, 1]."""

    mask: Tensor
    pattern: Tensor

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Stamp a batch; a fixed trigger draws nothing from `rng`."""
        return stamp(x, self.mask.to(x), self.pattern.to(x))


@dataclass(frozen=True, slots=True)
class Truth:
    """The sealed half of a poisoned set.

    `poisoned` maps the id of each poisoned sample, as numbered in the poisoned set, to its true
    label; `rate` is the share of the whole training set that was asked for.
    """

    attack: str
    params: dict[str, Any]
    mapping: Mapping
    target: int
    classes: tuple[str, ...]
    seed: int
    rate: float
    source_digest: str
    poisoned: dict[str, int]
    trigger: StampTrigger

    def relabel(self, labels: Labels) -> Labels:
        """The label the attacker wants for samples of the given true labels."""
        return wanted(labels, self.mapping, self.target, len(self.classes))


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A poisoned set and its truth; the two part ways as soon as they are written."""

    data: ImageSet
    truth: Truth


def wanted(labels: Labels, mapping: Mapping, target: int, classes: int) -> Labels:
    """The label map: everything to `target`, or y to y + 1."""
    if mapping == "all-to-all":
        return (labels + 1) % classes
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
        "classes": list(truth.classes),
        "seed": truth.seed,
        "rate": truth.rate,
        "source_digest": truth.source_digest,
        "poisoned": truth.poisoned,
    }
    tensors = {"mask": truth.trigger.mask.contiguous(), "pattern": truth.trigger.pattern.contiguous()}
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
        return Truth(
            **{**document, "classes": tuple(document["classes"])},
            trigger=StampTrigger(tensors["mask"], tensors["pattern"]),
        )
    except FileNotFoundError as error:
        raise FormatError(
            f"no truth at '{folder}': {Path(str(error.filename)).name} is missing",
            hint="`ostiary poison DATA -o DIR` writes it to DIR.truth",
        ) from error
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise FormatError(f"'{folder}' is not a truth folder: {error}") from error
