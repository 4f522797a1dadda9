"""A bank of LoRA adapters that nobody is known to have attacked, and how unlike them another one is."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

import ostiary
from ostiary.core.errors import ConfigError, FormatError, ModelError
from ostiary.core.files import refuse_existing, write_text
from ostiary.core.records import Frozen
from ostiary.core.reference import ALPHA, LEAST_MODELS, MAX_BYTES, now
from ostiary.core.session import Options
from ostiary.models.adapter import Adapter, changes, check_base, read_adapter
from ostiary.models.language import LanguageModel
from ostiary.scan.calibration import Left

HINT = "make one with `ostiary calibrate ADAPTER... --base DIR`"
SPREAD = 0.02
"""The least spread of a feature over the bank, so that equal adapters do not make all else infinite."""
TINY = 1e-12

Features = tuple[float, float, float, float, float]
"""Of one layer: logarithm of the largest singular value and of the Frobenius norm, share of the first direction in the
energy, entropy of the spectrum over its largest, logarithm of the kurtosis of the entries."""


class BankAdapter(Frozen):
    """One adapter of a bank: its folder's name, its digest, its rank, and the features of its layers by name."""

    name: str
    digest: str
    rank: int
    layers: dict[str, Features]


class AdapterBank(Frozen):
    """Adapters of one base, by its digest; a JSON file."""

    kind: Literal["adapter-bank"] = "adapter-bank"
    schema_version: Literal[1] = 1
    created: str
    ostiary: str
    base: str
    adapters: tuple[BankAdapter, ...] = ()


@dataclass(frozen=True, slots=True)
class Unlike:
    """How far an adapter lies from a bank, where most, and the share p of adapters that lie as far, itself among them.

    The distance of a layer is the mean over its features of how far they are from the median of the others, in robust
    standard deviations; the adapter's is that of its strangest layer.
    """

    distance: float
    layer: str
    p: float
    others: int

    @property
    def unusual(self) -> bool:
        """True when at most one in twenty lies as far."""
        return self.p <= ALPHA


def features(adapter: Adapter) -> dict[str, Features]:
    """The features of what the adapter adds to each layer.

    Source: spectra of B A as in arXiv 2602.15195 (twenty features of four projections); here of all layers.
    """
    return {name: _features(adapter.scale * up.double(), down.double()) for name, (down, up) in adapter.pairs.items()}


def _features(up: Tensor, down: Tensor) -> Features:
    # The singular values of B A are those of a matrix of r by r.
    left, right = torch.linalg.qr(up).R, torch.linalg.qr(down.T).R
    values = torch.linalg.svdvals(left @ right.T)
    energy = float(values.square().sum())
    share = values.square() / max(energy, TINY)
    entropy = float(-(share * share.clamp(min=TINY).log()).sum()) / max(math.log(len(values)), TINY)
    entries = up @ down
    kurtosis = float(entries.pow(4).mean()) / max(float(entries.square().mean()) ** 2, TINY**2)
    top = float(values[0])
    return (
        math.log(max(top, TINY)),
        math.log(max(energy, TINY**2)) / 2,
        float(share[0]),
        min(1.0, entropy),
        math.log(max(kurtosis, TINY)),
    )


def unlike(own: BankAdapter, bank: AdapterBank) -> Unlike:
    """What the bank says of an adapter; itself in the bank does not count.

    Every adapter is held against all others, the one in question among them, so that p is right for one that is like
    the bank (full conformal prediction: Vovk, Gammerman, Shafer 2005). Raises ConfigError where fewer than 19 of the
    bank have its rank and its layers: no p could reach one in twenty.
    """
    others = [one for one in bank.adapters if one.digest != own.digest and _alike(one, own)]
    if len(others) < LEAST_MODELS:
        raise ConfigError(
            f"the bank has {len(others)} other adapters of rank {own.rank} on the same {len(own.layers)} layers, "
            f"and {LEAST_MODELS} are needed to tell what is unusual",
            hint="add adapters of your own with `ostiary calibrate`, trained as this one is said to be",
        )
    names = sorted(own.layers)
    values = np.array([[one.layers[name] for name in names] for one in (own, *others)])
    distances = np.array([_distances(values[row], np.delete(values, row, axis=0)) for row in range(len(values))])
    strangest = distances.max(axis=1)
    p = float((strangest >= strangest[0]).mean())
    return Unlike(float(strangest[0]), names[int(distances[0].argmax())], p, len(others))


def _alike(one: BankAdapter, other: BankAdapter) -> bool:
    return one.rank == other.rank and one.layers.keys() == other.layers.keys()


def _distances(own: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each layer: `own` [l, f] against `rest` [n, l, f]."""
    middle = np.median(rest, axis=0)
    spread = 1.4826 * np.median(np.abs(rest - middle), axis=0)
    return np.asarray((np.abs(own - middle) / np.maximum(spread, SPREAD)).mean(axis=1))


def measured(adapter: Adapter) -> BankAdapter:
    """An adapter as a bank holds it."""
    return BankAdapter(name=adapter.name, digest=adapter.digest, rank=adapter.rank, layers=features(adapter))


def read_bank(path: Path | str) -> AdapterBank:
    """The bank in a file; raises FormatError when there is none."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"'{path}' is larger than the limit of {MAX_BYTES} bytes", hint=HINT)
        return AdapterBank.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(f"cannot read the bank '{path}': {error.strerror}", hint=HINT) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise FormatError(f"'{path}' is no bank of adapters: {where}: {first['msg']}", hint=HINT) from error


def check_bank(bank: AdapterBank, base_digest: str) -> None:
    """Raise ConfigError for a bank of another base."""
    if bank.base != base_digest:
        raise ConfigError(
            f"the bank is of adapters of the base {bank.base[:12]}, this one is of {base_digest[:12]}",
            hint="name the base that the bank was made with, or make another bank with `ostiary calibrate`",
        )


def make_bank(
    folders: Sequence[Path], base: LanguageModel, out: Path, options: Options
) -> tuple[AdapterBank, list[Left]]:
    """Measure adapters of `base` and keep them in the bank `out`, which is written after each of them.

    Adapters that it holds already are passed over; those that cannot be read, or are for another base, are left out and
    told. Raises FormatError when `out` is no bank, ConfigError when it is of another base or none could be measured.
    """
    digest = base.digest
    bank = read_bank(out) if out.exists() else AdapterBank(created=now(), ostiary=ostiary.__version__, base=digest)
    check_bank(bank, digest)
    left: list[Left] = []
    for number, folder in enumerate(folders):
        options.run().progress(number, len(folders), folder.name)
        try:
            adapter = read_adapter(folder)
            check_base(adapter, digest)
            for _ in changes(adapter, base.module):
                pass  # whether the base has its layers
        except (FormatError, ModelError) as error:
            left.append(Left(str(folder), str(error)))
            continue
        if all(one.digest != adapter.digest for one in bank.adapters):
            bank = bank.model_copy(update={"adapters": (*bank.adapters, measured(adapter))})
            write_text(out, bank.model_dump_json() + "\n", replace=True)
    if not bank.adapters:
        refuse_existing(out)
        raise ConfigError("none of the adapters could be measured", hint="; ".join(one.reason for one in left) or None)
    return bank, left


def furthest(bank: AdapterBank) -> list[tuple[str, Unlike]]:
    """The adapters of a bank by name, the one that is furthest from the others first; none where they are too few."""
    found = []
    for one in bank.adapters:
        with contextlib.suppress(ConfigError):
            found.append((one.name, unlike(one, bank)))
    return sorted(found, key=lambda pair: -pair[1].distance)
