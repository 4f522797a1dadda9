"""Draws docs/attacks.png: what each attack does to a few pictures, and the change alone.

    python examples/draw_attacks.py digits -o docs/attacks.png

IMAGES is any image set that `ostiary poison` takes. Each column is one attack at its defaults; each picture stands
above what it becomes and above the change, eight times as strong, around grey.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ostiary.attacks import METHODS
from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.data import open_data, trusted_subset

SCALE, GAP, HEAD = 4, 6, 18


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
    """Draw all attacks side by side."""
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
        trigger = attack.poison(data, run=Run()).truth.trigger
        columns.append(column(attack.card.name, x, trigger(x, rng=torch.Generator())))
    width, height = columns[0].size
    whole = Image.new("RGB", ((width + GAP) * len(columns) - GAP, height), "white")
    for number, drawn in enumerate(columns):
        whole.paste(drawn, (number * (width + GAP), 0))
    whole.save(args.out)


if __name__ == "__main__":
    main()
