"""Draws docs/attacks.png: what each attack does to a few pictures, and the change alone.

    python examples/draw_attacks.py digits -o docs/attacks.png

IMAGES is any image set that `ostiary poison` takes. Each column is one attack at its defaults; each picture stands
above what it becomes and above the change, eight times as strong, around grey. Attacks that control the training, and
those without a trigger, are left out.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ostiary.attacks import METHODS
from ostiary.core.catalog import make
from ostiary.core.protocols import DataAttack
from ostiary.core.run import Run
from ostiary.data import open_data, trusted_subset

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


def main() -> None:
    """Draw the attacks side by side, ACROSS in a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="an image set")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("-n", type=int, default=2, help="how many pictures (default 2)")
    args = parser.parse_args()
    data = open_data(args.images)
    x = trusted_subset(data, args.n, seed=0).take(range(args.n))
    columns = []
    for key in METHODS:
        attack = make("attack", key)
        trigger = attack.poison(data, run=Run()).truth.trigger if isinstance(attack, DataAttack) else None
        if trigger is not None:
            columns.append(column(attack.card.name, x, trigger(x, rng=torch.Generator())))
    width, height = columns[0].size
    rows = -(-len(columns) // ACROSS)
    whole = Image.new("RGB", ((width + GAP) * min(ACROSS, len(columns)) - GAP, (height + GAP) * rows - GAP), "white")
    for number, drawn in enumerate(columns):
        row, place = divmod(number, ACROSS)
        whole.paste(drawn, (place * (width + GAP), row * (height + GAP)))
    whole.save(args.out)


if __name__ == "__main__":
    main()
