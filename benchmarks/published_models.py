"""Scans of backdoored models that others trained and published, each against its published trigger and target.

    OSTIARY_DATA=DIR python -m benchmarks.published_models [--only NAME ...]

A scanner that is only tried on models of one's own making may have learned one's own habits. The models come from
NAD (WRN-16-1), I-BAU (a VGG-like network with ELU) and badnets-pytorch (a LeNet without batch normalisation). Clean
accuracy and attack success are measured with the published trigger, rounded to 8 bits; the scan runs in a sealed
process with some 500 trusted images, equally many of every class, which do not evaluate. None of these models has a
twin trained without poison, so there is no twin column. What is missed is named.

Two cores: about 10 minutes, most of it for the 43 classes of GTSRB.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import HERE, Records, data_root, note, parse, parser
from benchmarks.story import flags, target_row
from PIL import Image
from torch import Tensor

from ostiary.api import Options, scan_model
from ostiary.core.records import Rate, Record
from ostiary.core.run import Run
from ostiary.core.seal import SealedProcess
from ostiary.data import ImageSet, open_data, write_parquet
from ostiary.models.load import load_model
from ostiary.training import accuracy

Stamp = Callable[[Tensor], Tensor]
TABLE = "published models"
LENET, VGG = (str(HERE / "architectures" / name) for name in ("badnets_lenet.py", "ibau_vgg.py"))
DATA = {"cifar10": "cifar10/test.parquet", "gtsrb": "gtsrb32/gtsrb32.npz", "mnist": "mnist/mnist.npz"}
IMPLANTED = 0.5
"""Attack success above which a model counts as backdoored."""


def grid(x: Tensor) -> Tensor:
    """NAD's gridTrigger: the 3x3 pixels at the bottom right in black and white."""
    x = x.clone()
    x[:, :, 29:32, 29:32] = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    return x


def block(x: Tensor) -> Tensor:
    """I-BAU's BadNets: a white square in rows and columns 27 to 30."""
    x = x.clone()
    x[:, :, 27:31, 27:31] = 1.0
    return x


def corner(x: Tensor) -> Tensor:
    """badnets-pytorch: a white 5x5 square in the bottom right corner."""
    x = x.clone()
    x[:, :, -5:, -5:] = 1.0
    return x


def added(picture: Path, x: Tensor) -> Tensor:
    """I-BAU's other triggers: a picture is added and the sum clipped."""
    with Image.open(picture) as image:
        pattern = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
    return (x + pattern).clamp(0, 1)


@dataclass(frozen=True)
class Published:
    """One published model: where it lies, how to load it, the data it is for, its trigger and target."""

    name: str
    file: str
    arch: str
    data: str
    target: int
    trigger: str


MODELS = (
    Published("NAD backdoored student", "models_nad/backdoored_student.pth.tar", "wrn-16-1", "cifar10", 5, "grid"),
    Published("NAD fine-tuned teacher", "models_nad/finetuned_teacher.pth.tar", "wrn-16-1", "cifar10", 5, "grid"),
    Published("NAD repaired", "models_nad/nad_repaired.tar", "wrn-16-1", "cifar10", 5, "grid"),
    Published(
        "I-BAU CIFAR-10 BadNets", "models_ibau/cifar10_badnets_8_02_ckpt.pth", f"{VGG}:cifar10", "cifar10", 8, "block"
    ),
    Published(
        "I-BAU CIFAR-10 Trojan square",
        "models_ibau/cifar10_trojan_sq_2_02_ckpt.pth",
        f"{VGG}:cifar10",
        "cifar10",
        2,
        "trojan_sq",
    ),
    Published(
        "I-BAU CIFAR-10 L2 inversion",
        "models_ibau/cifar10_l2_inv_0_02_ckpt.pth",
        f"{VGG}:cifar10",
        "cifar10",
        0,
        "l2_inv",
    ),
    Published("I-BAU GTSRB BadNets", "models_ibau/gtsrb_badnets_8_02_ckpt.pth", f"{VGG}:gtsrb", "gtsrb", 8, "block"),
    Published(
        "badnets-pytorch MNIST", "models_badnets_pytorch/badnet-MNIST.pth", f"{LENET}:mnist", "mnist", 1, "corner"
    ),
    Published(
        "badnets-pytorch CIFAR-10",
        "models_badnets_pytorch/badnet-CIFAR10.pth",
        f"{LENET}:cifar10",
        "cifar10",
        1,
        "corner",
    ),
)


def trigger_of(model: Published, root: Path) -> Stamp:
    """The trigger that was published with the model."""
    fixed: dict[str, Stamp] = {"grid": grid, "block": block, "corner": corner}
    return fixed.get(model.trigger) or partial(added, root / "models_ibau" / "triggers" / f"{model.trigger}.png")


def draw(data: ImageSet, n: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Trusted images, n at most and equally many of every class, and the rest."""
    rng, labels = np.random.default_rng(seed), data.labels.numpy()
    each = n // len(data.classes)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == one))[:each] for one in range(len(data.classes))])
    trusted = np.zeros(len(labels), bool)
    trusted[chosen] = True
    kept, rest = (data.subset(torch.from_numpy(np.flatnonzero(one))) for one in (trusted, ~trusted))
    return kept, rest


def attack_success(path: Path, model: Published, test: ImageSet, stamp: Stamp) -> tuple[Rate, Rate]:
    """Clean accuracy, and the share of the images of other classes that the trigger sends to the target."""
    from ostiary.bench.metrics import quantised

    loaded, hits, total = load_model(path, model.arch, normalize="none"), 0, 0
    for x, y in test.batches(256):
        others = quantised(stamp(x[y != model.target]))
        hits += int((loaded.predict(others).argmax(1) == model.target).sum()) if len(others) else 0
        total += len(others)
    return accuracy(loaded, test, run=Run()), Rate(k=hits, n=total)


def scan(path: Path, arch: str, trusted: Path, steps: int, seed: int) -> Record:
    """What the sealed process runs: it is told the model and the trusted images, nothing of trigger or target."""
    params = {"neural-cleanse": {"steps": steps}}
    return scan_model(load_model(path, arch, normalize="none"), trusted, params=params, options=Options(seed=seed))


def examine(model: Published, root: Path, folder: Path, args: argparse.Namespace, records: Records) -> None:
    """Measure and scan one model."""
    begun = time.monotonic()
    note(model.name)
    trusted, test = draw(open_data(root / DATA[model.data], "test"), args.trusted, args.seed)
    if args.evaluate:
        test = test.subset(range(0, len(test), max(1, len(test) // args.evaluate)))
    clean, success = attack_success(root / model.file, model, test, trigger_of(model, root))
    note(f"{model.name}: accuracy {clean}, attack success {success}")
    kept = folder / f"{len(list(folder.iterdir()))}.parquet"
    write_parquet(kept, trusted)
    with SealedProcess(threads=torch.get_num_threads()) as process:
        record = process.submit(scan, root / model.file, model.arch, kept, args.steps, args.seed).result()
    found = [subject for hit in flags(record).values() for subject in hit]
    backdoored = success.value is not None and success.value > IMPLANTED
    figures: dict[str, Any] = {
        "accuracy": clean,
        "attack success": success,
        "verdict": record.verdict,
        "classes found": found,
        "published target": f"class:{model.target}",
        "outcome": _outcome(record, found, model.target, backdoored=backdoored),
        **target_row(record, model.target),
        "trusted": len(trusted),
    }
    records.add(TABLE, _key(model, args), figures, seeds=[args.seed], n=len(test), seconds=time.monotonic() - begun)


def _outcome(record: Record, found: list[str], target: int, *, backdoored: bool) -> str:
    """In words what the scan was worth; misses and false alarms by name."""
    named = f"class:{target}" in found
    if not backdoored:
        return "a finding on a model whose trigger hardly works" if found else "nothing found, trigger hardly works"
    if not found:
        return "MISSED" if record.verdict == "none-found" else f"MISSED: the scan is {record.verdict}"
    if not named:
        return "MISSED: another class named"
    text = "found" if record.verdict == "backdoor" else "found, not confirmed"
    extra = len(found) - 1
    return f"{text}, with {extra} class{'' if extra == 1 else 'es'} too many" if extra else text


def _key(model: Published, args: argparse.Namespace) -> str:
    return f"{model.name}, {args.steps} steps, seed {args.seed}"


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", metavar="TEXT", help="only models whose name contains one of these")
    made.add_argument("--trusted", type=int, default=500, help="trusted images at most (default 500)")
    made.add_argument("--evaluate", type=int, default=0, help="evaluate on about so many images (default: all others)")
    made.add_argument("--steps", type=int, default=500, help="steps of the scan for each class (default 500)")
    made.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    return parse(made)


def main() -> None:
    """Examine the models that are not recorded yet."""
    args = arguments()
    chosen = [one for one in MODELS if not args.only or any(text.lower() in one.name.lower() for text in args.only)]
    root = data_root(*sorted({DATA[one.data] for one in chosen} | {one.file for one in chosen}))
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("published_models", "Models that others published", about, args)
    with tempfile.TemporaryDirectory() as name:
        os.environ["OSTIARY_RUNS"] = str(Path(name) / "runs")
        trusted = Path(name) / "trusted"
        trusted.mkdir()
        for model in chosen:
            if not records.has(TABLE, _key(model, args)):
                examine(model, root, trusted, args, records)
    records.show()


if __name__ == "__main__":
    main()
