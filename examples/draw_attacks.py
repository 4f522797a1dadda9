"""Draws docs/attacks.png: what each attack does to a few pictures, and the change alone.

    python examples/draw_attacks.py digits -o docs/attacks.png
    python examples/draw_attacks.py $OSTIARY_DATA/gtsrb32/gtsrb32.npz --bank benchmarks/bank/reference \\
        -o docs/reference-attacks.png

IMAGES is any image set that `ostiary poison` takes. Each column is one attack at its defaults; each picture stands
above what it becomes and above the change, eight times as strong, around grey. Attacks that make a model, and those
without a trigger, are left out. With a bank the triggers are those of its models, attacks on models among them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ostiary.attacks import METHODS
from ostiary.attacks.triggers import Trigger
from ostiary.bench.bank import Bank
from ostiary.core.catalog import make
from ostiary.core.protocols import DataAttack
from ostiary.core.run import Run
from ostiary.data import ImageSet, open_data, trusted_subset

SCALE, GAP, HEAD, ACROSS = 4, 6, 18, 7


def column(name: str, images: torch.Tensor, poisoned: torch.Tensor) -> Image.Image:
    """One attack: per picture the original, the triggered one and the change."""
    rows = []
    for before, after in zip(images, poisoned, strict=True):
        rows += [before, after, ((after - before) * 8 + 0.5).clamp(0, 1)]
    c, h, w = images.shape[1:]
    drawn = Image.new("RGB", (w * SCALE, HEAD + len(rows) * (h * SCALE + GAP)), "white")
    ImageDraw.Draw(drawn).text((0, 2), name, fill="black", font=ImageFont.load_default(12))
    for number, row in enumerate(rows):
        levels = (row.expand(3, h, w) if c == 1 else row).mul(255).round().to(torch.uint8)
        tile = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
        drawn.paste(
            tile.resize((w * SCALE, h * SCALE), Image.Resampling.NEAREST), (0, HEAD + number * (h * SCALE + GAP))
        )
    return drawn


def own_triggers(data: ImageSet) -> Iterator[tuple[str, Trigger]]:
    """Each data attack at its defaults."""
    for key in METHODS:
        attack = make("attack", key)
        trigger = attack.poison(data, run=Run()).truth.trigger if isinstance(attack, DataAttack) else None
        if trigger is not None:
            yield attack.card.name, trigger


def bank_triggers(path: Path) -> Iterator[tuple[str, Trigger]]:
    """Each attack of a bank, of the model with the most poison."""
    bank = Bank(path)
    attacked = [row["spec"] | {"key": row["key"]} for row in bank.models.values() if row["spec"]["kind"] == "attack"]
    most = {spec["name"]: spec["key"] for spec in sorted(attacked, key=lambda spec: spec["params"]["rate"])}
    for name, key in sorted(most.items()):
        stored = bank.find(key)
        if stored is not None and (trigger := stored.truth().trigger) is not None:
            yield name, trigger


def main() -> None:
    """Draw the attacks side by side, ACROSS in a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="an image set")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("-n", type=int, default=2, help="how many pictures (default 2)")
    parser.add_argument("--bank", type=Path, help="a bank of models whose triggers are drawn")
    args = parser.parse_args()
    data = open_data(args.images)
    x = trusted_subset(data, args.n, seed=0).take(range(args.n))
    triggers = own_triggers(data) if args.bank is None else bank_triggers(args.bank)
    columns = [column(name, x, trigger(x, rng=torch.Generator())) for name, trigger in triggers]
    width, height = columns[0].size
    rows = -(-len(columns) // ACROSS)
    whole = Image.new("RGB", ((width + GAP) * min(ACROSS, len(columns)) - GAP, (height + GAP) * rows - GAP), "white")
    for number, drawn in enumerate(columns):
        row, place = divmod(number, ACROSS)
        whole.paste(drawn, (place * (width + GAP), row * (height + GAP)))
    whole.save(args.out)


if __name__ == "__main__":
    main()
